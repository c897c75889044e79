"""Trained model -> IntegerNetwork."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from bnnhw.errors import UserError
from bnnhw.lowering import fixed
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
from bnnhw.network.spec import Convolution, NetworkSpec, NumberFormats
from bnnhw.nn import BinaryResNet
from bnnhw.nn.checkpoint import Checkpoint
from bnnhw.nn.folded import Folded, FoldedStem, FoldedThermometer, finite
from bnnhw.nn.quantisers import INT8_MAX, int8_scale

FINER = 2  # bits by which numbers that are only compared may be finer than the stream


@dataclass(frozen=True)
class Comparison:
    """What becomes of an operation's numbers.

    fraction : their bits after the point. threshold : of the Requantiser.
    last : wide units, number or (C,), for the constant that is added last.
    """

    fraction: int
    threshold: np.ndarray
    last: np.ndarray | float


def _streamed(levels: np.ndarray, formats: NumberFormats) -> Comparison:
    """Numbers that continue as the stream; levels (N, C) of the next binarizer."""
    threshold = fixed.stream_threshold(levels, formats)
    half = 2.0 ** (formats.guard - 1)
    return Comparison(formats.residual_fraction, _plain(threshold), half)


def _compared(levels: np.ndarray, finer: int, formats: NumberFormats) -> Comparison:
    """Numbers that are compared and forgotten: shifted so that the first threshold is whole."""
    fraction = formats.residual_fraction + finer
    steps = levels * 2.0**fraction
    first = np.where(np.isfinite(steps[0]), steps[0], 0.0)
    shift = first - np.ceil(first)
    low, high = saturation(formats.residual_width)
    threshold = np.clip(np.round(steps - shift), low, high + 1).astype(np.int32)
    return Comparison(fraction, _plain(threshold), -shift * 2.0**formats.guard)


def _plain(threshold: np.ndarray) -> np.ndarray:
    """(N, C), or (C,) where N is 1."""
    return threshold[0] if len(threshold) == 1 else threshold


def _stem(folded: FoldedStem | FoldedThermometer, levels: np.ndarray,
          spec: NetworkSpec) -> IntegerStem:  # fmt: skip
    step = 2.0**spec.formats.residual_fraction
    if isinstance(folded, FoldedThermometer):
        weights, gain, shift, lost = folded.term.weights, folded.term.gain, 1, 0.0
        thermometer = folded.levels.astype(np.uint8)
    else:
        weights, gain, thermometer = folded.weights, folded.gain, None
        greatest = 9 * spec.input[2] * 128 * INT8_MAX
        shift = fixed.pre_shift(greatest, np.abs(gain).max() * step)
        lost = (1 - 2.0**-shift) / 2
    after = _streamed(levels, spec.formats)
    slope = gain * 2**shift * step
    requantiser = Requantiser(
        fixed.scale_of("stem", slope, spec.formats),
        fixed.wide_of("stem.bias", folded.offset * step + slope * lost, spec.formats, after.last),
        after.threshold,
    )
    return IntegerStem(weights, shift, requantiser, thermometer)


def _sums_compared(folded: Folded, shape: Convolution, levels: np.ndarray) -> IntegerConvolution:
    """One term, no shortcut: all that follows becomes a threshold; a falling channel's weights are
    negated."""
    (term,) = folded.terms
    signs = np.where(term.gain < 0, -1, 1).astype(np.int8)
    weights = np.ascontiguousarray(term.weights * signs[:, None, None, None])

    def value(acc: np.ndarray) -> np.ndarray:
        return fixed.activated(np.abs(term.gain) * acc + folded.offset, folded.activation)

    threshold = fixed.sum_threshold(value, levels[0], 9 * shape.in_channels)
    return IntegerConvolution(shape, weights, None, threshold)


def _requantised(folded: Folded, shape: Convolution, after: Comparison,
                 spec: NetworkSpec) -> IntegerConvolution:  # fmt: skip
    name, formats, parts = shape.name, spec.formats, structure(shape, spec.repair)
    step, lost, stretch, spatial = 2.0**after.fraction, 0.5 * len(folded.terms), 1.0, None
    if folded.spatial is not None:
        spatial, stretch = fixed.spatial(folded.spatial)
        lost *= float(spatial.mean()) / 64
        lost += 0.5
    if not (parts.before or parts.gate or parts.after):
        lost -= 0.5  # the last floor costs nothing
    scales = [fixed.scale_of(name, t.gain * 2 / stretch * step, formats) for t in folded.terms]
    last: dict[str, np.ndarray | float] = {"bias": 0.0, "before": 0.0, "after": 0.0}
    if parts.after or not parts.gate:
        last["after" if parts.after else "before" if parts.before else "bias"] = after.last
    else:
        last["before"] = 0.5  # the gate multiplies what the activation has floored
    bias = fixed.wide_of(f"{name}.bias", folded.offset * step, formats, lost + last["bias"])
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
            fixed.wide_of(f"{name}.{place}.shift_in plus bias", total, formats)
    size = (shape.out_height, shape.out_width)
    return IntegerConvolution(
        shape,
        folded.terms[0].weights,
        Requantiser(scales[0], bias, after.threshold),
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
    )


def _convolution(folded: Folded, shape: Convolution, levels: np.ndarray,
                 spec: NetworkSpec) -> IntegerConvolution:  # fmt: skip
    """levels : (N, C), the least real numbers that the next binarizers make a 1."""
    formats = spec.formats
    if shape.shortcut:
        return _requantised(folded, shape, _streamed(levels, formats), spec)
    if not structure(shape, spec.repair).requantised:
        return _sums_compared(folded, shape, levels)
    greatest = np.abs(levels[np.isfinite(levels)]).max(initial=0.0)
    quarter = 2.0 ** (formats.residual_width - 2 - formats.residual_fraction)
    for finer in range(FINER, 0, -1):
        if greatest * 2.0**finer <= quarter:
            try:
                return _requantised(folded, shape, _compared(levels, finer, formats), spec)
            except fixed.Overflow:
                continue
    return _requantised(folded, shape, _compared(levels, 0, formats), spec)


def _head(model: BinaryResNet, spec: NetworkSpec) -> IntegerHead:
    weight = model.head.weight.detach()
    finite("head.weight", weight)
    unit = int8_scale(weight, per_channel=False)
    last = spec.convolutions()[-1]
    pixels = last.out_height * last.out_width
    logit = float(unit) / (pixels * 2.0**spec.formats.residual_fraction)
    bias = finite("head.bias", model.head.bias) / logit
    shift = 0
    while np.abs(np.round(bias / 2**shift)).max() > INT8_MAX:
        shift += 1
        if shift > 14:
            at = int(np.argmax(np.abs(bias)))
            raise UserError(
                f"head.bias[{at}]={bias[at] * logit:.6g}: must stay below "
                f"{(INT8_MAX << 14) * logit:.6g} beside these weights; train the model anew"
            )
    weights = torch.round(weight / unit).to(torch.int8).numpy()
    return IntegerHead(weights, np.round(bias / 2**shift).astype(np.int8), shift)


@dataclass(frozen=True)
class _Source:
    """A model read once, whatever formats are tried."""

    model: BinaryResNet
    stem: FoldedStem | FoldedThermometer
    layers: tuple[Folded, ...]

    def lower(self, formats: NumberFormats) -> IntegerNetwork:
        spec = replace(self.model.spec, formats=formats)
        shapes = spec.convolutions()
        unused = np.zeros((spec.repair.features, shapes[-1].out_channels))  # after the last
        levels = [*(layer.thresholds for layer in self.layers), unused]
        convolutions = tuple(
            _convolution(layer, shape, after, spec)
            for layer, shape, after in zip(self.layers, shapes, levels[1:], strict=True)
        )
        stem, head = _stem(self.stem, levels[0], spec), _head(self.model, spec)
        return IntegerNetwork(spec, stem, self._shortcuts(convolutions, formats), head)

    def _shortcuts(self, convolutions: tuple[IntegerConvolution, ...],
                   formats: NumberFormats) -> tuple[IntegerConvolution, ...]:  # fmt: skip
        """With their 1x1 convolutions, which all drop as many bits."""
        parts = [layer.shortcut for layer in self.layers]
        shifts = [fixed.shortcut_shift(part, formats) for part in parts if part is not None]
        return tuple(
            conv if part is None else replace(
                conv, shortcut=fixed.shortcut(
                    f"{conv.shape.name}.shortcut", part, max(shifts), formats
                ),
            )
            for conv, part in zip(convolutions, parts, strict=True)
        )  # fmt: skip


def _formats(spec: NetworkSpec, width: int | None) -> Iterator[NumberFormats]:
    """Formats to try in turn, the finest first."""
    asked = spec.formats
    width = asked.residual_width if width is None else width
    guard = asked.guard
    if keeps_wide(spec.repair):
        guard = min(guard, WIDE_LIMIT - width)
        if guard < 1:
            raise UserError(
                f"residual_width={width}: must be less than {WIDE_LIMIT} where a repair method "
                f"keeps sums between passes"
            )
    fine = FINE_SLOPES if multiplies_wide(spec.repair) else 0
    lowest = fine + 1 if fine else guard
    if lowest > asked.scale_fraction:
        raise UserError(
            f"scale_fraction={asked.scale_fraction}: must be at least {lowest} with activations, "
            f"gates or spatial factors"
        )
    extra = width - asked.residual_width
    for more in range(extra, min(extra, 0) - 1, -1):
        for fraction in range(asked.scale_fraction, lowest - 1, -1):
            yield replace(
                asked,
                residual_width=width,
                residual_fraction=max(0, asked.residual_fraction + more),
                scale_fraction=fraction,
                guard=min(guard, fraction - fine),
            )


def lower(
    source: BinaryResNet | Checkpoint, *, residual_width: int | None = None
) -> IntegerNetwork:
    """The integers of a trained (or untrained) network.

    residual_width : bits of the residual stream instead of those it was trained with. They come
    or go behind the point, so the stream saturates where it did in training.
    Where a scale or bias needs more than 16 bits, the whole network gets the next smaller
    formats.scale_fraction, then (if wider than trained) formats.residual_fraction; where wide
    numbers go from one operation to another, formats.guard shrinks until they fit 16 bits.
    UserError names the layer and value that no format can hold.
    """
    model = source.model() if isinstance(source, Checkpoint) else source
    layers = tuple(layer.folded() for layer in model.layers())
    read = _Source(model, model.stem.folded(), layers)
    for formats in _formats(model.spec, residual_width):
        try:
            return read.lower(formats)
        except fixed.Overflow as overflow:
            fault = overflow
    raise fault
