"""The integer network: the one contract between machine learning and hardware.

Everything the device computes is defined here, in integers; `bnnhw.golden` runs it.

Features are bits (1 is +1, 0 is -1), of which an ensemble makes N from each value, and a
residual stream of signed fixed-point numbers of `formats.residual_width` bits (W),
`formats.fraction(stage)` of them (F) after the point. G is formats.guard and S
formats.scale_fraction; wide numbers have F + G bits after the point. sat16 saturates to signed
16 bits, >> is the floor. What the spec's repair methods do not ask for is left out.

Stem. Pixels are bytes; x = byte - 128 is in [-128, 127]. Padded taps are the bytes spec.pad, or
x = 0 where it is empty:
    acc = sum x * weight                              exact
    half = acc >> pre_shift                           floor; |half| < 2**15
Thermometer stem. Bit l of colour c is byte >= levels[l], L even, and input channel c * L + l of a
binary convolution. Its padded taps are the bits of spec.pad, or as in the others where it is empty.
levels are spec.levels, or 256 * (l + 1) / (L + 1) rounded where there are none:
    half = acc / 2                                    exact
Binary convolution, of each term its own weights and feature. x and weight are +-1; a zero-padded
tap adds nothing, a minus-one-padded tap is x = -1. Channel counts are even, so acc is even:
    acc = sum x * weight                              exact
    half = acc / 2                                    exact
Requantisation, of the stem (r = 0, its activation is before the addition), and of each convolution
with a shortcut, with more than one term or with spatial factors (r = 0 where there is no shortcut):
    u = scaled(half, scale)                           of the first term
    u = u + r                                         unless spatial factors, a gate or an
                                                      activation come before the addition
    u = sat16(u) + scaled(half, scale)                for each further term
    u = (sat16(u) * spatial[row, column]) >> 6        spatial factors: 64 is 1.0
    u = u + (bias << max(e, 0)) + border
    u = act(u)                                        activation before the addition
    u = (sat16(u) * gate) >> (S - G)                  gate below
    v = u + r                                         unless r is in u already
    v = act(v)                                        activation after the addition
    y = saturate_W(v >> G)                            (v + 2**(G-1)) >> G if a gate was the last
    bit_n = y >= threshold_n                          2**(W-1) means never
    scaled(half, scale) = (half * scale * 2**e) >> (S - G)
e is the channel's exponent, 0 but where its scale or bias needs more bits than most, or its scale
less.
border is 0, but with adabin_padding=zero border[i, j] of a channel, in wide units: i is 0 in the
first row, whose window begins above the map, 2 in the last row where its window ends below the map,
else 1; j the same of columns; border[1, 1] is 0.
With several terms, spatial factors, activations, gates or shortcuts but pad W + G is at most 15;
with spatial factors, activations or gates S - G is at least 8.
Where no gate lies between them and e is 0, bias + shift_in is within signed 16 bits.
The rounding half 2**(G-1) is part of the constant that was added last: an activation's shift_out,
else the bias. y continues as the residual stream if there is a shortcut, and is used for nothing
but its bits if not; the bits are the next convolution's features.
Activation, act(v):
    t = sat16(v + shift_in)
    ((t * slope) >> (S - G)) + shift_out              slope: `positive` where t >= 0, else
                                                      `negative`; each of any sign
Gate, one per channel and image, S - G bits after the point, so less than 1.0:
    x = (sum of sat16(u) over a block of 2x2 pixels) >> D   past an odd edge u is 0
    hidden = clamp(layer1(sum x * w1), 0, 2**15 - 1)        over all blocks and channels
    gate = clamp(layer2(sum (hidden >> (D - 2)) * w2), 0, 2**(S - G) - 1)
    layer(sum) = ((sat16(sum >> 8) * scale) >> (S - G)) + bias      D is max(2, W + G - 8)
Shortcut, r, of the stream before the block. g is G + F of the numbers that are made - F of that
stream, which differ where a stage of another F begins; x << g with g < 0 is x >> -g:
    stream << g                                       stride 1, or pad: every other pixel, between
                                                      zero channels as spec.Convolution says
    (sum of 2x2 residuals << g) >> 2                  avgpool-duplicate: channel c takes channel
                                                      c % shortcut_channels; past an odd edge the
                                                      edge again
    sat16(scaled(half, scale) + (bias << max(e, 0)))  1x1 convolutions of every other pixel;
                                                      half = acc >> pre_shift, acc = sum x * weight,
                                                      x the residual, or its sign (0 is +1);
                                                      all have the same pre_shift
A convolution without a shortcut, of one term and without spatial factors, gives bits only:
bit = acc >= threshold, whatever normalisation and activation lie between. Where a channel's
activation rises on one side and falls on the other no threshold of acc can follow it. Then the
whole convolution is requantised, with r = 0 and an activation before the addition, and bit = y >=
threshold; y is used for nothing else.
Head. logit = sum over pixels and channels of y * weight, plus bias; class = argmax, the
lowest of equals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.operations import (
    IntegerActivation,
    IntegerGate,
    IntegerHead,
    IntegerShortcut,
    IntegerStem,
    IntegerTerm,
    Requantiser,
    check_array,
    check_product,
    check_range,
    check_signs,
    saturation,
)
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NetworkSpec

__all__ = [
    "IntegerActivation",
    "IntegerConvolution",
    "IntegerGate",
    "IntegerHead",
    "IntegerNetwork",
    "IntegerShortcut",
    "IntegerStem",
    "IntegerTerm",
    "Requantiser",
    "Structure",
    "saturation",
    "structure",
]

WIDE_LIMIT = 15  # W + G where wide numbers are saturated to 16 bits on the way
FINE_SLOPES = 8  # least S - G where wide numbers are multiplied: bits of a slope after the point


@dataclass(frozen=True)
class Structure:
    """What a convolution consists of; the spec alone says so.

    features : the input's bits that each of its terms takes.
    same_weights : whether the terms differ in their features alone.
    window_sum : whether all outputs share the last term's weights.
    requantised : whether it has scales and biases, not thresholds of acc alone.
    spatial, before, gate, shortcut, after : whether it has the part of IntegerConvolution.
    averages : whether its shortcut takes the mean of 2x2 pixels.
    """

    features: tuple[int, ...]
    same_weights: bool
    window_sum: bool
    requantised: bool
    spatial: bool
    before: bool
    gate: bool
    shortcut: bool
    after: bool
    averages: bool


def structure(shape: Convolution, repair: Repair) -> Structure:
    """The parts of this convolution in a network of these repair methods, unless it has its own."""
    repair = shape.repair or repair
    kind, _, count = repair.ensemble.partition("-")
    features = tuple(range(repair.features))
    if kind == "weights":
        features = (0,) * int(count)
    if repair.binary_sets == "adabin":
        features = (0, 0)
    spatial = repair.scaling == "spatial"
    requantised = shape.shortcut or len(features) > 1 or spatial
    active = requantised and repair.activation != "none"
    after = active and shape.shortcut and repair.activation_position == "after-add"
    moves = shape.shortcut and shape.shortcut_stride > 1
    return Structure(
        features=features,
        same_weights=kind == "features",
        window_sum=repair.binary_sets == "adabin",
        requantised=requantised,
        spatial=spatial,
        before=active and not after,
        gate=shape.shortcut and repair.squeeze_excitation != "none",
        shortcut=moves and repair.downsample.startswith("conv1x1"),
        after=after,
        averages=moves and repair.downsample == "avgpool-duplicate",
    )


def keeps_wide(spec: NetworkSpec) -> bool:
    """Whether wide numbers go from one operation to another, so that they must fit 16 bits."""
    return multiplies_wide(spec) or any(
        repair.ensemble != "none" or repair.binary_sets == "adabin" or repair.downsample != "pad"
        for repair in repairs(spec)
    )


def repairs(spec: NetworkSpec) -> list[Repair]:
    """Returns the methods of each layer."""
    return [layer.repair or spec.repair for layer in spec.convolution_layers()]


def multiplies_wide(spec: NetworkSpec) -> bool:
    """Whether wide numbers are multiplied, by factors that need bits after the point."""
    return spec.stem_activation != "none" or any(
        repair.scaling == "spatial"
        or repair.activation != "none"
        or repair.squeeze_excitation != "none"
        for repair in repairs(spec)
    )


@dataclass(frozen=True)
class IntegerConvolution:
    """weights : int8 (out_channels, 3, 3, in_channels) of -1 and +1, of the first term.

    `requantiser` is set where `Structure.requantised` says so, its scale the first term's;
    elsewhere `threshold`: int32 (C,) in [-fan_in, fan_in+1]. Where an activation lies before such
    bits, a requantiser and `before` may stand in place of `threshold`.
    further : the other terms. spatial : uint8 (out_height, out_width), 64 is 1.0.
    border : int32 (3, 3, C) in signed 16 bits, wide units, only with adabin_padding=zero.
    before, after : the activation, before or after the shortcut is added.
    shortcut : a 1x1 convolution on it.
    """

    shape: Convolution
    weights: np.ndarray
    requantiser: Requantiser | None
    threshold: np.ndarray | None
    further: tuple[IntegerTerm, ...] = ()
    spatial: np.ndarray | None = None
    before: IntegerActivation | None = None
    gate: IntegerGate | None = None
    shortcut: IntegerShortcut | None = None
    after: IntegerActivation | None = None
    border: np.ndarray | None = None

    def parts(self, repair: Repair) -> Structure:
        """What it consists of, numbers compared in place of sums too."""
        asked, repair = structure(self.shape, repair), self.shape.repair or repair
        if asked.requantised or self.requantiser is None or repair.activation == "none":
            return asked
        return replace(asked, requantised=True, before=True)

    def check(self, spec: NetworkSpec) -> None:
        """UserError unless every array is as the spec asks and fits the device."""
        shape, parts = self.shape, self.parts(spec.repair)
        name, out = shape.name, shape.out_channels
        for part in ("spatial", "before", "gate", "shortcut", "after"):
            if (getattr(self, part) is not None) != getattr(parts, part):
                rule = "needs one" if getattr(parts, part) else "has none"
                raise UserError(f"{name}.{part}: a convolution of this place and repair {rule}")
        check_signs(f"{name}.weights", self.weights, (out, 3, 3, shape.in_channels))
        self._check_terms(parts)
        if parts.requantised:
            if self.requantiser is None:
                why = "a shortcut" if shape.shortcut else "several terms or spatial factors"
                raise UserError(f"{name}: has {why}, so it needs scale, bias and threshold")
            numbers = self.requantiser
            numbers.check(name, out, spec.repair.features, spec.formats)
            for scale in (numbers.scale, *(term.scale for term in self.further)):
                halves = 9 * shape.in_channels // 2
                check_product(name, halves, scale, numbers.exponent, spec.formats)
        else:
            fan_in = 9 * shape.in_channels
            if self.requantiser is not None:
                raise UserError(f"{name}: gives bits of its sums, so it has a threshold alone")
            if self.threshold is None:
                raise UserError(f"{name}: has no shortcut, so it needs thresholds of its sums")
            check_array(f"{name}.threshold", self.threshold, np.int32, (out,))
            check_range(f"{name}.threshold", self.threshold, -fan_in, fan_in + 1)
        if (self.border is not None) != (parts.window_sum and spec.adabin_padding == "zero"):
            raise UserError(f"{name}.border: not that of adabin_padding={spec.adabin_padding}")
        if self.border is not None:
            self._check_border(self.border)
        if self.spatial is not None:
            image = (shape.out_height, shape.out_width)
            check_array(f"{name}.spatial", self.spatial, np.uint8, image)
        for place, act in (("before", self.before), ("after", self.after)):
            if act is not None:
                act.check(f"{name}.{place}", out)
                if self.requantiser is not None and not (place == "after" and self.gate):
                    total = self.requantiser.bias + act.shift_in
                    if self.requantiser.exponent is not None:
                        total = total[self.requantiser.exponent <= 0]
                    check_range(f"{name}.{place}.shift_in plus bias", total, *saturation(16))
        if self.gate is not None:
            gated = (shape.out_height, shape.out_width, out)
            self.gate.check(f"{name}.gate", gated, spec.formats)
        if self.shortcut is not None:
            kind = (shape.repair or spec.repair).downsample
            if self.shortcut.binary != (kind == "conv1x1-binary"):
                raise UserError(f"{name}.shortcut: is not the spec's {kind}")
            size = (out, shape.shortcut_channels)
            self.shortcut.check(f"{name}.shortcut", size, spec.formats)

    def _check_border(self, border: np.ndarray) -> None:
        shape, name = self.shape, f"{self.shape.name}.border"
        check_array(name, border, np.int32, (3, 3, shape.out_channels))
        check_range(name, border, *saturation(16))
        if border[1, 1].any():
            raise UserError(f"{name}[1, 1]: must be 0")
        if 1 in (shape.height, shape.width):
            raise UserError(f"{name}: a map of one row or column has no such border")

    def _check_terms(self, parts: Structure) -> None:
        shape, name = self.shape, self.shape.name
        features = (0, *(term.feature for term in self.further))
        if features != parts.features:
            raise UserError(f"{name}: its terms take bits {features}, must take {parts.features}")
        for at, term in enumerate(self.further, 1):
            rows = 1 if parts.window_sum and at == len(self.further) else shape.out_channels
            taps = (rows, 3, 3, shape.in_channels)
            term.check(f"{name}.further[{at - 1}]", taps, shape.out_channels)
            if parts.same_weights and not np.array_equal(term.weights, self.weights):
                raise UserError(f"{name}.further[{at - 1}].weights: must be the first term's")


@dataclass(frozen=True)
class IntegerNetwork:
    """A whole network; checked on construction against its spec."""

    spec: NetworkSpec
    stem: IntegerStem
    convolutions: tuple[IntegerConvolution, ...]
    head: IntegerHead

    def __post_init__(self) -> None:
        formats = self.spec.formats
        wide = formats.residual_width + formats.guard
        if keeps_wide(self.spec) and wide > WIDE_LIMIT:
            raise UserError(
                f"residual_width + guard = {wide}: must be at most {WIDE_LIMIT} where a repair "
                f"method keeps sums between passes"
            )
        fine = formats.scale_fraction - formats.guard
        if multiplies_wide(self.spec) and fine < FINE_SLOPES:
            raise UserError(
                f"scale_fraction - guard = {fine}: must be at least {FINE_SLOPES} with "
                f"activations, gates or spatial factors"
            )
        self.stem.check(self.spec)
        if tuple(conv.shape for conv in self.convolutions) != self.spec.convolutions():
            raise UserError("convolutions: not those of the spec")
        for conv in self.convolutions:
            conv.check(self.spec)
        parts = [conv.shortcut for conv in self.convolutions if conv.shortcut is not None]
        shifts = {part.pre_shift for part in parts}
        if len(shifts) > 1:
            raise UserError(f"shortcut.pre_shift: {sorted(shifts)}, must be the same in all")
        self.head.check(self.spec)
