"""FoldedNetwork -> IntegerNetwork: real numbers become integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bnnhw.errors import UserError
from bnnhw.lowering import fixed
from bnnhw.lowering.align import aligned
from bnnhw.network.folded import (
    Folded,
    FoldedHead,
    FoldedNetwork,
    FoldedStem,
    FoldedThermometer,
)
from bnnhw.network.integer import (
    FINE_SLOPES,
    WIDE_LIMIT,
    IntegerConvolution,
    IntegerHead,
    IntegerNetwork,
    IntegerStem,
    IntegerTerm,
    Requantiser,
    keeps_wide,
    multiplies_wide,
    saturation,
    structure,
)
from bnnhw.network.operations import INT8_MAX
from bnnhw.network.spec import Convolution, NetworkSpec, NumberFormats

COARSER = 3  # bits that a scale_fraction may lose before few channels get exponents
FEW = 1 / 8  # of a layer's channels
FINER = 2  # bits by which numbers that are only compared may be finer than the stream


class Folds(Protocol):
    """A FoldedNetwork, or what becomes one."""

    def folded(self) -> FoldedNetwork: ...


@dataclass(frozen=True)
class Comparison:
    """What becomes of an operation's numbers.

    fraction : their bits after the point. threshold : of the Requantiser.
    last : wide units, a number or (C,), for the constant that is added last.
    """

    fraction: int
    threshold: np.ndarray
    last: np.ndarray | float


def _streamed(levels: np.ndarray, formats: NumberFormats) -> Comparison:
    """Returns the Comparison of numbers that continue as the stream.

    levels : (N, C), of the next binarizer.
    """
    threshold = fixed.stream_threshold(levels, formats)
    half = 2.0 ** (formats.guard - 1)
    return Comparison(formats.residual_fraction, _plain(threshold), half)


def _compared(levels: np.ndarray, finer: int, formats: NumberFormats) -> Comparison:
    """Returns the Comparison of numbers that are only compared.

    They are shifted so that the first threshold is whole.
    """
    fraction = formats.residual_fraction + finer
    steps = levels * 2.0**fraction
    first = np.where(np.isfinite(steps[0]), steps[0], 0.0)
    shift = first - np.ceil(first)
    low, high = saturation(formats.residual_width)
    threshold = np.clip(np.round(steps - shift), low, high + 1).astype(np.int32)
    return Comparison(fraction, _plain(threshold), -shift * 2.0**formats.guard)


def _plain(threshold: np.ndarray) -> np.ndarray:
    """Returns (N, C), or (C,) where N is 1."""
    return threshold[0] if len(threshold) == 1 else threshold


def _stem(folded: FoldedStem | FoldedThermometer, levels: np.ndarray,
          spec: NetworkSpec, room: fixed.Room) -> IntegerStem:  # fmt: skip
    formats = spec.formats.at(spec.formats.fraction(0))
    step = 2.0**formats.residual_fraction
    if isinstance(folded, FoldedThermometer):
        weights, gain, shift, lost = folded.term.weights, folded.term.gain, 1, 0.0
        thermometer = folded.levels.astype(np.uint8)
    else:
        weights, gain, thermometer = folded.weights, folded.gain, None
        greatest = 9 * spec.input[2] * 128 * INT8_MAX
        shift = fixed.pre_shift(greatest, np.abs(gain).max() * step)
        lost = (1 - 2.0**-shift) / 2
    after = _streamed(levels, formats)
    last, act = after.last, None
    if folded.activation is not None:
        act = fixed.activation(
            "stem.activation", folded.activation, step, formats, carry_in=0.0, carry_out=last
        )
        last = 0.5
    slope = gain * 2**shift * step
    (scale,), bias, exponent = fixed.constants(
        "stem", [slope], folded.offset * step + slope * lost, last, formats, room,
        of_sums=thermometer is None,
    )  # fmt: skip
    requantiser = Requantiser(scale, bias, after.threshold, exponent)
    return IntegerStem(weights, shift, requantiser, thermometer, act)


def _sums_compared(folded: Folded, shape: Convolution, levels: np.ndarray,
                   formats: NumberFormats) -> IntegerConvolution:  # fmt: skip
    """Returns a convolution of one term without shortcut: all that follows is a threshold.

    That is exact. The weights of a channel that falls with its sum are negated. Where an activation
    rises and falls, there are two thresholds.
    """
    (term,), act, fan_in = folded.terms, folded.activation, 9 * shape.in_channels
    signs = np.where(term.gain < 0, -1.0, 1.0)
    if act is not None:
        rises = (act.positive >= 0) & (act.negative >= 0)
        falls = (act.positive <= 0) & (act.negative <= 0)
        if not (rises | falls).all():
            half = np.arange(-fan_in // 2, fan_in // 2 + 1)[:, None]
            values = fixed.activated(term.gain * 2 * half + folded.offset, act)
            part, before = fixed.two_sided(values >= levels[0], formats)
            return IntegerConvolution(shape, term.weights, part, None, before=before)
        signs = np.where(rises, signs, -signs)
    weights = term.weights * signs.astype(np.int8)[:, None, None, None]

    def value(acc: np.ndarray) -> np.ndarray:
        return fixed.activated(term.gain * signs * acc + folded.offset, act)

    threshold = fixed.sum_threshold(value, levels[0], fan_in)
    return IntegerConvolution(shape, np.ascontiguousarray(weights), None, threshold)


def _requantised(folded: Folded, shape: Convolution, after: Comparison, spec: NetworkSpec,
                 room: fixed.Room) -> IntegerConvolution:  # fmt: skip
    name, parts = shape.name, structure(shape, spec.repair)
    formats = spec.formats.at(shape.fraction)
    step, lost, stretch, spatial = 2.0**after.fraction, 0.5 * len(folded.terms), 1.0, None
    if folded.spatial is not None:
        spatial, stretch = fixed.spatial(folded.spatial)
        lost *= float(spatial.mean()) / 64
        lost += 0.5
    if not (parts.before or parts.gate or parts.after):
        lost -= 0.5  # the last floor costs nothing
    slopes = [term.gain * 2 / stretch * step for term in folded.terms]
    last: dict[str, np.ndarray | float] = {"bias": 0.0, "before": 0.0, "after": 0.0}
    if parts.after or not parts.gate:
        last["after" if parts.after else "before" if parts.before else "bias"] = after.last
    else:
        last["before"] = 0.5  # the gate multiplies what the activation has floored
    scales, bias, exponent = fixed.constants(
        name, slopes, folded.offset * step, lost + last["bias"], formats, room
    )
    acts = {
        place: fixed.activation(
            f"{name}.{place}", folded.activation, step, formats,
            carry_in=0.5 if place == "after" and parts.gate else 0.0, carry_out=last[place],
        )
        if folded.activation is not None and getattr(parts, place) else None
        for place in ("before", "after")
    }  # fmt: skip
    for place, act in acts.items():
        if act is not None and not (place == "after" and parts.gate):
            total = (bias + act.shift_in) / 2.0**formats.guard
            total = total if exponent is None else np.where(exponent > 0, 0.0, total)
            fixed.wide_of(f"{name}.{place}.shift_in plus bias", total, formats)
    size = (shape.out_height, shape.out_width)
    return IntegerConvolution(
        shape,
        folded.terms[0].weights,
        Requantiser(scales[0], bias, after.threshold, exponent),
        None,
        further=tuple(
            IntegerTerm(term.weights, scale, term.feature)
            for term, scale in zip(folded.terms[1:], scales[1:], strict=True)
        ),
        spatial=spatial,
        gate=None
        if folded.gate is None
        else fixed.gate(f"{name}.gate", folded.gate, size, formats),
        before=acts["before"],
        after=acts["after"],
        border=None
        if folded.border is None
        else fixed.wide_of(f"{name}.border", folded.border * step, formats),
    )


def _convolution(folded: Folded, shape: Convolution, levels: np.ndarray, spec: NetworkSpec,
                 room: fixed.Room) -> IntegerConvolution:  # fmt: skip
    """Returns a convolution in integers.

    levels : (N, C), the least real numbers that the next binarizers make a 1.
    """
    formats = spec.formats.at(shape.fraction)
    if shape.shortcut:
        return _requantised(folded, shape, _streamed(levels, formats), spec, room)
    if not structure(shape, spec.repair).requantised:
        return _sums_compared(folded, shape, levels, formats)
    greatest = np.abs(levels[np.isfinite(levels)]).max(initial=0.0)
    quarter = 2.0 ** (formats.residual_width - 2 - formats.residual_fraction)
    for finer in range(FINER, 0, -1):
        if greatest * 2.0**finer <= quarter:
            try:
                return _requantised(folded, shape, _compared(levels, finer, formats), spec, room)
            except fixed.Overflow:
                continue
    return _requantised(folded, shape, _compared(levels, 0, formats), spec, room)


def _head(part: FoldedHead, spec: NetworkSpec) -> IntegerHead:
    last = spec.convolutions()[-1]
    logit = part.unit / (last.out_height * last.out_width * 2.0**last.fraction)
    bias, shift = part.bias / logit, 0
    while np.abs(np.round(bias / 2**shift)).max() > INT8_MAX:
        shift += 1
        if shift > 14:
            at = int(np.argmax(np.abs(bias)))
            raise UserError(
                f"head.bias[{at}]={bias[at] * logit:.6g}: must stay below "
                f"{(INT8_MAX << 14) * logit:.6g} beside these weights; take as much from the "
                f"biases of all classes"
            )
    return IntegerHead(part.weights, np.round(bias / 2**shift).astype(np.int8), shift)


def _lowered(source: FoldedNetwork, formats: NumberFormats, room: fixed.Room) -> IntegerNetwork:
    """Returns the network in these formats; may raise Overflow."""
    if not source.rounded:
        source = aligned(source, formats)
    spec = replace(source.spec, formats=formats)
    shapes = spec.convolutions()
    unused = np.zeros((spec.repair.features, shapes[-1].out_channels))  # after the last
    levels = [*(layer.thresholds for layer in source.layers), unused]
    convolutions = tuple(
        _convolution(layer, shape, after, spec, room)
        for layer, shape, after in zip(source.layers, shapes, levels[1:], strict=True)
    )
    convolutions = _shortcuts(source.layers, convolutions, formats, room)
    stem, head = _stem(source.stem, levels[0], spec, room), _head(source.head, spec)
    return IntegerNetwork(spec, stem, convolutions, head)


def _shortcuts(
    layers: tuple[Folded, ...], convolutions: tuple[IntegerConvolution, ...],
    formats: NumberFormats, room: fixed.Room,
) -> tuple[IntegerConvolution, ...]:  # fmt: skip
    """With their 1x1 convolutions, which all drop as many bits."""
    parts = [layer.shortcut for layer in layers]
    shifts = [
        fixed.shortcut_shift(part, conv.shape, formats)
        for conv, part in zip(convolutions, parts, strict=True)
        if part is not None
    ]
    return tuple(
        conv if part is None else replace(
            conv, shortcut=fixed.shortcut(part, conv.shape, max(shifts), formats, room)
        )
        for conv, part in zip(convolutions, parts, strict=True)
    )  # fmt: skip


def _formats(
    spec: NetworkSpec, width: int | None, points: tuple[int, ...], exponents: bool
) -> Iterator[tuple[NumberFormats, fixed.Room]]:
    """Yields the formats to try in turn, the finest first, and which channels may have exponents.

    As long as few channels need exponents, all others keep a fine scale_fraction.
    """
    asked = spec.formats
    width = asked.residual_width if width is None else width
    if points:
        asked = replace(asked, residual_width=width, residual_fractions=points)
    guard = asked.guard
    if keeps_wide(spec):
        guard = min(guard, WIDE_LIMIT - width)
        if guard < 1:
            raise UserError(
                f"residual_width={width}: must be less than {WIDE_LIMIT} where a repair method "
                f"keeps sums between passes"
            )
    fine = FINE_SLOPES if multiplies_wide(spec) else 0
    lowest = fine + 1 if fine else guard
    if lowest > asked.scale_fraction:
        raise UserError(
            f"scale_fraction={asked.scale_fraction}: must be at least {lowest} with activations, "
            f"gates or spatial factors"
        )
    extra = width - asked.residual_width
    fractions = range(asked.scale_fraction, lowest - 1, -1)
    shares = {0.0: fractions[: COARSER + 1], FEW: fractions, 1.0: fractions[-1:]}
    for more in range(extra, min(extra, 0) - 1, -1):
        wider = replace(asked, residual_width=max(width, asked.residual_width)).finer(more)
        for share, some in shares.items() if exponents else [(None, fractions)]:
            if share == 1.0 and more > min(extra, 0):
                continue
            for fraction in some:
                formats = replace(
                    wider,
                    residual_width=width,
                    scale_fraction=fraction,
                    guard=min(guard, fraction - fine),
                )
                yield formats, fixed.Room(share)


def lower(
    source: Folds, *, residual_width: int | None = None,
    residual_fractions: tuple[int, ...] = (), exponents: bool = True,
) -> IntegerNetwork:  # fmt: skip
    """Returns the integers of a network.

    source : a FoldedNetwork, or a model or checkpoint that folds to one.

    residual_width : bits of the residual stream instead of those of its training. They come or go
        behind the point, so the stream saturates where it did in training.
    residual_fractions : bits after the point by stage, in place of those of the training and of
        what follows from another width.
    exponents : whether few channels of a layer get exponents, rather than all a much smaller
        scale_fraction.

    Where a scale or bias needs more than 16 bits, the whole network gets the next smaller
    formats.scale_fraction, then (if wider than trained) formats.residual_fraction. Where wide
    numbers go from one operation to another, formats.guard shrinks until they fit 16 bits. Raises
    UserError with the layer and value that no format can hold.
    """
    network = source.folded()
    for formats, room in _formats(network.spec, residual_width, residual_fractions, exponents):
        try:
            return _lowered(network, formats, room)
        except fixed.Overflow as overflow:
            fault = overflow
    raise fault
