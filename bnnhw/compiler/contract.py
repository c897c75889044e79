"""What of the integer network's contract the engine has no hardware for, refused by name."""

from __future__ import annotations

from collections.abc import Iterator

from bnnhw.errors import UserError
from bnnhw.network.integer import IntegerNetwork


def check_contract(network: IntegerNetwork) -> None:
    """Raises UserError with the first part of a network that the engine cannot run."""
    for what, remedy in _missing(network):
        raise UserError(f"{what}: the engine has no such part yet; {remedy}")


def _missing(network: IntegerNetwork) -> Iterator[tuple[str, str]]:
    """Every such part and what to do."""
    fractions = network.spec.formats.residual_fractions
    if len(set(fractions)) > 1:
        yield f"residual_fractions={fractions}", "use one residual_fraction for all stages"
