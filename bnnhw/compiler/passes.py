"""The passes of the engine that one binary convolution takes.

A pass convolves, or takes an operand from memory, scales it, adds a map, multiplies by a slope and
leaves a map. Between passes numbers are wide, of 16 bits; they lie where the residual stream does,
or, where the stream is still needed as it was, in the other place for residuals: the sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from bnnhw.compiler.entries import thermometer_weights, threshold_parameters
from bnnhw.compiler.layout import groups
from bnnhw.network.integer import (
    IntegerActivation,
    IntegerConvolution,
    IntegerNetwork,
    IntegerShortcut,
    IntegerStem,
    Requantiser,
    structure,
)
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NumberFormats

STREAM, SUMS = "stream", "sums"
HIDDEN, GATES = "hidden", "gates"
Channels = TypeVar("Channels", Requantiser, IntegerActivation)
SIGNS = -1  # in place of a bit's number: the stream's signs, where they are no feature


@dataclass(frozen=True)
class Pass:
    """One pass over the maps of a convolution.

    name : what tells it from the convolution's other passes; "" for the one that leaves the
        convolution's own numbers, which the golden has.
    kind : conv; scale (of `operand`); shortcut or bits (nothing but the map that is added);
        pointwise (an 8-bit 1x1 convolution of the stream); layer (of a gate: of the operand's
        blocks).
    weights : int8 (O, 3, 3, I) of a conv, (O, I) pointwise or of a layer, else None. feature :
        which of the input's bits a conv takes.
    part : scale, bias and threshold (O,) each. act : the slopes, of a scale in place of its
        scales, of a conv after them.
    factors : uint8 (H, W), of a scale: a slope for each pixel in place of part.scale.
    operand, adds, keeps : STREAM, SUMS or none of them; of layers HIDDEN, and GATES, which become
        the next scale's slopes.
    moves : what is added is the stream before the convolution changed its shape.
    strided : one output for each block of 2x2 inputs. centre : the middle tap counts alone.
    mean : what is added is the means of 2x2 blocks, with the output's channels.
    gated : of a scale: its slopes are the gates that a layer has left.
    wide_out : what is left is wide.
    emits : which of its bits are left, if any.
    """

    name: str
    kind: str
    part: Requantiser
    weights: np.ndarray | None = None
    feature: int = 0
    act: IntegerActivation | None = None
    factors: np.ndarray | None = None
    operand: str | None = None
    adds: str | None = None
    keeps: str | None = None
    moves: bool = False
    strided: bool = False
    centre: bool = False
    mean: bool = False
    gated: bool = False
    wide_out: bool = False
    emits: int | None = None

    def of_channels(self, some: slice) -> Pass:
        """The same pass of some of its output channels."""
        assert self.weights is not None
        return replace(
            self, weights=self.weights[some], part=_some(self.part, some),
            act=None if self.act is None else _some(self.act, some),
        )  # fmt: skip

    @property
    def folds(self) -> int:
        """Cycles of a channel: groups of its inputs; more reads than one take four."""
        if self.weights is not None and self.kind == "conv":
            return groups(self.weights.shape[3])
        return 4 if self.operand and self.adds else 1

    @property
    def in_place(self) -> bool:
        """Whether what is added are single pixels that lie as those that are left."""
        return self.strided and self.adds is not None and not self.moves

    @property
    def fetches(self) -> int:
        """Words of each block that fill the window."""
        return self.folds if self.factors is None else 1


def _some(part: Channels, some: slice) -> Channels:
    """The part with some of its channels."""
    arrays = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(part, **{name: a[some] for name, a in arrays.items() if a is not None})


def needs_passes(network: IntegerNetwork, *, slopes: bool = True) -> bool:
    """Whether any convolution takes more than one pass that computes.

    slopes : whether the lanes have memories for the slopes of an activation after the addition.
    """
    repair = network.spec.repair
    return repair.features > 1 or any(
        conv.further or _adds_late(conv, repair) or (conv.after is not None and not slopes)
        for conv in network.convolutions
    )


def _adds_late(conv: IntegerConvolution, repair: Repair) -> bool:
    """Whether the stream is not added as it lies, or not to the convolution's first sums."""
    made = conv.shortcut is not None
    if averages(conv, repair) and conv.shape.shortcut_stride != conv.shape.stride:
        made = True  # means of a larger map than the convolution's
    return made or any(part is not None for part in (conv.before, conv.spatial, conv.gate))


def averages(conv: IntegerConvolution, repair: Repair) -> bool:
    """Whether it adds the means of the stream's 2x2 blocks."""
    return structure(conv.shape, repair).averages


def _reshapes(shape: Convolution) -> bool:
    return shape.stride > 1 or shape.in_channels != shape.out_channels


def moves_first(conv: IntegerConvolution, repair: Repair) -> bool:
    """Whether the stream is brought into this convolution's output's shape by a pass of its own:
    it is not added here, or not as it is, or not to the convolution's sums."""
    return _reshapes(conv.shape) and (not conv.shape.shortcut or _adds_late(conv, repair))


def move(
    conv: IntegerConvolution, part: IntegerShortcut | None, feature: int, *, mean: bool = False
) -> Pass:
    """That pass. part : a 1x1 convolution, of these bits; it and a mean leave wide numbers."""
    strided = conv.shape.stride > 1
    if part is None:
        return Pass(
            "shortcut", "shortcut", _compared(np.zeros(conv.shape.out_channels)), adds=STREAM,
            keeps=STREAM, moves=True, strided=strided, mean=mean, wide_out=mean,
        )  # fmt: skip
    constants = Requantiser(part.scale, part.bias, np.zeros_like(part.bias))
    if not part.binary:
        return Pass(
            "shortcut", "pointwise", constants, part.weights, keeps=STREAM, moves=True,
            strided=strided, wide_out=True,
        )  # fmt: skip
    weights = np.ones((len(part.weights), 3, 3, part.weights.shape[1]), np.int8)
    weights[:, 1, 1] = part.weights
    return Pass(
        "shortcut", "conv", constants, weights, feature, keeps=STREAM, moves=True,
        strided=strided, centre=True, wide_out=True,
    )  # fmt: skip


def _compared(threshold: np.ndarray) -> Requantiser:
    """Leaves what is added as it is."""
    zero = np.zeros(threshold.shape, np.int32)
    return Requantiser(zero, zero, threshold.astype(np.int32))


def stem(part: IntegerStem, levels: np.ndarray) -> Pass:
    """The binary stem as a convolution of the image's bits."""
    weights = thermometer_weights(part.weights, len(levels))
    return Pass("", "conv", part.requantiser, weights, keeps=STREAM, emits=0)


def signs(channels: int) -> Pass:
    """The stream's signs as bits."""
    return Pass("signs", "bits", _compared(np.zeros(channels)), adds=STREAM, emits=SIGNS)


def further_bits(part: Requantiser, place: str, features: int) -> Iterator[Pass]:
    """Compares the map at `place` with each threshold but the first."""
    for at in range(1, features):
        yield Pass(f"bits{at}", "bits", _compared(part.thresholds[at]), adds=place, emits=at)


def convolution_passes(
    conv: IntegerConvolution, formats: NumberFormats, *, moved: bool, features: int,
    mean: bool = False, slopes: bool = False,
) -> Iterator[Pass]:  # fmt: skip
    """The passes after `move`, if that came first.

    moved : whether it did: the stream is of the output's shape already.
    features : how many bits the next convolution takes of each number; 0 if there is none.
    mean : whether the stream that is added here is averaged. slopes : whether the lanes have those
        of its activation.
    """
    if conv.requantiser is None:
        part = threshold_parameters(conv.shape.name, conv.threshold, formats)
        yield Pass("", "conv", part, conv.weights, strided=conv.shape.stride > 1, emits=0)
        return
    if slopes:
        (last,) = _terms(conv, _shifted(conv), STREAM, moved, mean)
        last = replace(last, act=conv.after, wide_out=False)
    else:
        rounding = 1 << (formats.guard - 1)
        *before, last = _sums(conv, conv.requantiser, moved, rounding, mean)
        yield from before
    place = STREAM if conv.shape.shortcut else SUMS
    keeps = place if conv.shape.shortcut or features > 1 else None
    yield replace(last, name="", keeps=keeps, emits=0 if features else None)
    yield from further_bits(conv.requantiser, place, features)


def _shifted(conv: IntegerConvolution) -> Requantiser:
    """The requantiser, whose bias has the activation's shift_in."""
    part, act = conv.requantiser, conv.before or conv.after
    assert part is not None
    return part if act is None else replace(part, bias=part.bias + act.shift_in)


def _sums(
    conv: IntegerConvolution, last: Requantiser, moved: bool, rounding: int, mean: bool
) -> Iterator[Pass]:
    """Every term, then the spatial factors, the gate and the activation, which may come before it;
    its shift_in is in the bias before. rounding : half a step, after a gate."""
    shape, act, gated = conv.shape, conv.before or conv.after, conv.gate is not None
    late = gated and conv.after is not None
    if not late:
        last = _shifted(conv)
    here = shape.shortcut and conv.before is None and not gated
    place = STREAM if here and conv.spatial is None else SUMS
    yield from _terms(conv, last, place, moved, mean)
    if conv.spatial is not None:
        place = STREAM if here else SUMS
        yield Pass(
            "spatial",
            "scale",
            replace(last, scale=0 * last.scale, threshold=last.thresholds[0]),
            factors=conv.spatial,
            operand=SUMS,
            adds=STREAM if here else None,
            keeps=place,
            wide_out=act is not None or gated,
        )
    if gated and conv.before is None:
        yield from _gated(conv, last, conv.after.shift_in if conv.after else rounding)
        place = STREAM
    if act is not None:
        adds = conv.before is not None and shape.shortcut and not gated
        yield Pass(
            "activation",
            "scale",
            Requantiser(act.positive, act.shift_out, last.thresholds[0]),
            act=act,
            operand=place,
            adds=STREAM if adds else None,
            keeps=place,
            wide_out=gated and not late,
        )
    if gated and conv.before is not None:
        yield from _gated(conv, last, rounding)


def _gated(conv: IntegerConvolution, last: Requantiser, bias: int | np.ndarray) -> Iterator[Pass]:
    """The gate of the sums, and the sums times it. bias : added last."""
    shape, gate = conv.shape, conv.gate
    assert gate is not None
    odd = shape.out_height % 2 or shape.out_width % 2
    if odd and shape.stride > 1 and conv.spatial is None and conv.before is None:
        # Single pixels were left; what lies beside them must count as 0.
        blank = _compared(last.thresholds[0])
        yield Pass("edges", "shortcut", blank, adds=SUMS, keeps=SUMS, wide_out=True)
    for name, weights, scale, constant, operand, keeps in (
        ("hidden", gate.w1, gate.scale1, gate.bias1, SUMS, HIDDEN),
        ("gate", gate.w2, gate.scale2, gate.bias2, HIDDEN, GATES),
    ):
        part = Requantiser(scale, constant, np.zeros_like(constant))
        yield Pass(name, "layer", part, weights, operand=operand, keeps=keeps, wide_out=True)
    none = np.zeros_like(last.bias)
    yield Pass(
        "gated", "scale", Requantiser(none, none + bias, last.thresholds[0]), operand=SUMS,
        adds=STREAM, keeps=STREAM, gated=True, wide_out=conv.after is not None,
    )  # fmt: skip


def _terms(
    conv: IntegerConvolution, last: Requantiser, place: str, moved: bool, mean: bool
) -> Iterator[Pass]:
    """Each adds to what the one before left at `place`; the last has the bias, unless spatial
    factors come first."""
    shape, scaled = conv.shape, conv.spatial is not None
    terms = [(conv.weights, last.scale, 0)]
    terms += [(term.weights, term.scale, term.feature) for term in conv.further]
    moves = place == STREAM and _reshapes(shape) and not moved
    for at, (weights, scale, feature) in enumerate(terms):
        first, final = at == 0, at == len(terms) - 1
        yield Pass(
            f"term{at}",
            "conv",
            Requantiser(scale, last.bias * int(final and not scaled), last.thresholds[0]),
            np.broadcast_to(weights, (shape.out_channels, *weights.shape[1:])),
            feature,
            adds=None if first and place == SUMS else place,
            keeps=place,
            moves=moves and first,
            strided=shape.stride > 1,
            mean=mean and moves and first,
            wide_out=not final or scaled or bool(conv.before or conv.after or conv.gate),
        )
