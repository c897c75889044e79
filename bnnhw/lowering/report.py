"""What lowering changed of the formats that a network asks for, said by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NumberFormats


def changes(asked: NumberFormats, network: IntegerNetwork) -> tuple[str, ...]:
    """Returns a sentence for each format that is another one, and for each layer's exponents."""
    return (*_formats(asked, network.spec.formats), *_exponents(network))


def _formats(asked: NumberFormats, got: NumberFormats) -> Iterator[str]:
    for field in fields(NumberFormats):
        before, after = getattr(asked, field.name), getattr(got, field.name)
        if before != after:
            yield f"{field.name}: {before} became {after}, so that scales and biases fit"


def _exponents(network: IntegerNetwork) -> Iterator[str]:
    parts = [("stem", network.stem.requantiser)]
    for conv in network.convolutions:
        if conv.requantiser is not None:
            parts.append((conv.shape.name, conv.requantiser))
    for name, part in parts:
        for at, exponent in enumerate([] if part.exponent is None else part.exponent.tolist()):
            if exponent:
                yield f"{name}: channel {at} has exponent {exponent}, its scale is far from most"
