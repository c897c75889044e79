"""Real numbers of a folded layer -> integers of one operation, as bnnhw.network.integer uses them.

Steps are units of the numbers that an operation makes, 2**-fraction; residual steps in the stream.
A floor loses half a unit on average; the next constant makes up for it. The floor before whole
constants and another floor costs nothing: floor(floor(t) + n) = floor(t + n).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.integer import IntegerActivation, IntegerGate, IntegerShortcut, saturation
from bnnhw.network.operations import GATE_SHIFT, INT16, SPATIAL_FRACTION, gate_coarse
from bnnhw.network.spec import NumberFormats
from bnnhw.nn.folded import FoldedActivation, FoldedGate, FoldedShortcut
from bnnhw.nn.quantisers import INT8_MAX

FINEST_HALF = 1 / 8  # residual steps
BIAS_LIMIT = 2.0**30


class Overflow(UserError):
    """A scale or constant needs more than 16 bits; with a smaller fraction it may fit."""


def scale_of(where: str, slope: np.ndarray, formats: NumberFormats) -> np.ndarray:
    """Scales int32 (C,) of slopes in steps per half; may raise Overflow."""
    scale = np.round(slope * 2.0**formats.scale_fraction)
    if np.abs(scale).max() > INT16[1]:
        at = int(np.argmax(np.abs(slope)))
        raise Overflow(
            f"{where}.scale[{at}]: half a sum is worth {abs(slope[at]):.6g} residual steps for "
            f"each unit, must stay below {INT16[1] / 2**formats.scale_fraction:.6g}; train the "
            f"model anew"
        )
    return scale.astype(np.int32)


def wide_of(where: str, steps: np.ndarray, formats: NumberFormats,
            carry: np.ndarray | float = 0.0) -> np.ndarray:  # fmt: skip
    """Constants (C,) in steps, `carry` wide units more, as int32 wide ones; may raise Overflow."""
    wide = np.round(steps * 2.0**formats.guard + carry)
    if np.abs(wide).max() > INT16[1]:
        at = int(np.argmax(np.abs(wide)))
        raise Overflow(
            f"{where}[{at}]: folds to {steps[at]:.6g} residual steps, must stay below "
            f"{INT16[1] / 2**formats.guard:.6g}; train the model anew"
        )
    return wide.astype(np.int32)


def pre_shift(greatest: int, step: float) -> int:
    """Bits to drop of sums up to `greatest`, each unit worth so many steps.

    Enough for half to fit, and while a half stays a small part of a step: dropping bits that do
    not matter makes the scale greater, and so its rounding finer.
    """
    shift = 0
    while greatest >> shift >> 15 or (shift < 16 and step * 2 ** (shift + 1) <= FINEST_HALF):
        shift += 1
    return shift


def stream_threshold(levels: np.ndarray, formats: NumberFormats) -> np.ndarray:
    """The least residuals, in steps, that are at or above real levels: int32, of their shape."""
    low, high = saturation(formats.residual_width)
    steps = np.ceil(levels * 2.0**formats.residual_fraction)
    return np.clip(steps, low, high + 1).astype(np.int32)


def sum_threshold(
    value: Callable[[np.ndarray], np.ndarray], level: np.ndarray, fan_in: int
) -> np.ndarray:
    """The least acc in [-fan_in, fan_in] with value(acc) >= level, else fan_in + 1: int32 (C,).

    value : per channel, nowhere falling. By bisection: rounding keeps the comparison monotone, so
    the answer is that of trying every acc.
    """
    low = np.full(level.shape, -fan_in, np.int64)
    high = np.full(level.shape, fan_in + 1, np.int64)
    while (low < high).any():
        middle = (low + high) >> 1
        holds = value(middle) >= level
        high = np.where(holds, middle, high)
        low = np.where(holds | (low >= high), low, middle + 1)
    return high.astype(np.int32)


def activated(x: np.ndarray, part: FoldedActivation | None) -> np.ndarray:
    """The activation of real x (C,)."""
    if part is None:
        return x
    slope = np.where(x >= part.shift_in, part.positive, part.negative)
    y: np.ndarray = slope * (x - part.shift_in) + part.shift_out
    return y


def activation(where: str, part: FoldedActivation, step: float, formats: NumberFormats, *,
               carry_in: float, carry_out: np.ndarray | float) -> IntegerActivation:  # fmt: skip
    """carry_in, carry_out : wide units more in the shifts; step : 2**fraction."""
    one = 2.0 ** (formats.scale_fraction - formats.guard)
    slopes = [np.round(slope * one) for slope in (part.positive, part.negative)]
    for kind, slope in zip(("positive", "negative"), slopes, strict=True):
        if slope.max() > INT16[1] or slope.min() < 0:
            at = int(np.argmax(np.abs(slope)))
            raise Overflow(
                f"{where}.{kind}[{at}]={slope[at] / one:.6g}: slopes must lie in 0 to "
                f"{INT16[1] / one:.6g}; train the model anew"
            )
    return IntegerActivation(
        wide_of(f"{where}.shift_in", -part.shift_in * step, formats, carry_in),
        slopes[0].astype(np.int32),
        slopes[1].astype(np.int32),
        wide_of(f"{where}.shift_out", part.shift_out * step, formats, carry_out),
    )


def spatial(factors: np.ndarray) -> tuple[np.ndarray, float]:
    """Factors as uint8, the greatest 255, and by how much the terms' gains must shrink for it."""
    greatest = factors.max()
    if greatest <= 0:
        return np.zeros(factors.shape, np.uint8), 1.0
    stretch = 255 / 2.0**SPATIAL_FRACTION / greatest
    return np.round(factors * stretch * 2.0**SPATIAL_FRACTION).astype(np.uint8), stretch


def gate(
    where: str, part: FoldedGate, size: tuple[int, int], formats: NumberFormats
) -> IntegerGate:
    """A gate of maps (height, width); may raise Overflow.

    Hidden numbers have room for means that are all an eighth of the stream's range, with the signs
    of their weights. Scales are whole by choice of the weights' units, row by row.
    """
    pixels, blocks = size[0] * size[1], -(-size[0] // 2) * -(-size[1] // 2)
    one = 2.0 ** (formats.scale_fraction - formats.guard)
    coarse, dropped = 2.0 ** gate_coarse(formats), 2.0**GATE_SHIFT
    # A mean of 1 gives so many units of x in all blocks together.
    mean = pixels * 2.0 ** (formats.residual_fraction + formats.guard) / 4 / coarse
    row = np.abs(part.w1).sum(1)
    likely = row * 2.0 ** (formats.residual_width - formats.residual_fraction) / 16
    unit1 = np.abs(part.w1).max(1) / INT8_MAX
    unit1 = np.maximum(unit1, likely * mean / dropped / 2.0**15)
    unit1 = np.maximum(unit1, row * blocks / coarse * 2.0**15 / BIAS_LIMIT).clip(1e-9)
    half1 = unit1 * dropped / mean
    hidden = max((likely + part.b1).max() / 2.0**15, half1.max() * one / INT16[1])
    scale1 = np.ceil(half1 / hidden * one).clip(max=INT16[1])
    w1 = np.round(part.w1 / (scale1 * hidden / one * mean / dropped)[:, None])
    lost = w1.sum(1) * blocks * (1 - 1 / (4 * coarse)) / 2 / dropped + 0.5  # of a half
    bias1 = part.b1 / hidden + lost * scale1 / one + coarse / 2

    unit2 = np.abs(part.w2).max(1) / INT8_MAX
    step = hidden * coarse * dropped  # of z, for each of those units
    unit2 = np.maximum(unit2, (3 + np.abs(part.b2)) / step / 2.0**15)
    scale2 = np.ceil(unit2 * step / 6 * one * one)
    if scale2.max() > INT16[1]:
        raise Overflow(f"{where}: its weights are too great for its gates; train the model anew")
    w2 = np.round(part.w2 * (step / 6 * one * one / scale2)[:, None])
    bias2 = (part.b2 / 6 + 0.5) * one + 0.5 * scale2 / one + 0.5
    return IntegerGate(
        w1.astype(np.int8), scale1.astype(np.int32), _int16(bias1),
        w2.astype(np.int8), scale2.astype(np.int32), _int16(bias2),
    )  # fmt: skip


def _int16(values: np.ndarray) -> np.ndarray:
    """Rounded to int32 in signed 16 bits; what is beyond lies beyond a clamp anyway."""
    return np.round(values).clip(*INT16).astype(np.int32)


def shortcut_shift(part: FoldedShortcut, formats: NumberFormats) -> int:
    """Bits that a 1x1 convolution may drop of its sums; those of the stream are of its steps."""
    if part.binary:
        return 1
    row = np.abs(part.weights.astype(np.int64)).sum(1).max()
    return pre_shift(int(row) << (formats.residual_width - 1), float(np.abs(part.gain).max()))


def shortcut(
    where: str, part: FoldedShortcut, shift: int, formats: NumberFormats
) -> IntegerShortcut:
    """A 1x1 convolution that drops `shift` bits; its floor's half a unit is in its bias."""
    step = 2.0**formats.residual_fraction
    slope = part.gain * step if part.binary else part.gain
    lost = 0.0 if part.binary else (1 - 2.0**-shift) / 2
    slope = slope * 2.0**shift
    return IntegerShortcut(
        part.weights, shift, scale_of(where, slope, formats),
        wide_of(f"{where}.bias", part.offset * step + slope * lost, formats, 0.5), part.binary,
    )  # fmt: skip
