"""What of the integer network's contract the engine has no hardware for, refused by name."""

from __future__ import annotations

from collections.abc import Iterator

from bnnhw.errors import UserError
from bnnhw.network.integer import IntegerNetwork, IntegerShortcut, Requantiser


def check_contract(network: IntegerNetwork) -> None:
    """Raises UserError with the first part of a network that the engine cannot run."""
    for what, remedy in _missing(network):
        raise UserError(f"{what}: the engine has no such part yet; {remedy}")


def _missing(network: IntegerNetwork) -> Iterator[tuple[str, str]]:
    """Every such part and what to do."""
    fractions = network.spec.formats.residual_fractions
    if len(set(fractions)) > 1:
        yield f"residual_fractions={fractions}", "use one residual_fraction for all stages"
    spec = network.spec
    for shape in spec.convolutions():
        if shape.repair not in (None, spec.repair):
            yield f"{shape.name}.repair", "give all layers the network's methods"
    if spec.stem_activation != "none":
        yield f"stem_activation={spec.stem_activation}", "use stem_activation=none"
    if spec.adabin_padding != "centre":
        yield f"adabin_padding={spec.adabin_padding}", "use adabin_padding=centre"
    for name, part in _scaled(network):
        if part.exponent is not None and part.exponent.any():
            at = int(part.exponent.argmax() if part.exponent.max() else part.exponent.argmin())
            yield f"{name}.exponent[{at}]={part.exponent[at]}", "lower it with exponents=False"


def _scaled(network: IntegerNetwork) -> Iterator[tuple[str, Requantiser | IntegerShortcut]]:
    """Every scale of a network."""
    yield "stem", network.stem.requantiser
    for conv in network.convolutions:
        if conv.requantiser is not None:
            yield conv.shape.name, conv.requantiser
        if conv.shortcut is not None:
            yield f"{conv.shape.name}.shortcut", conv.shortcut
