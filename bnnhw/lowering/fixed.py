"""Real numbers of a folded layer as the integers of one operation of bnnhw.network.integer.

A step is the unit of the numbers that an operation makes, 2**-fraction. In the stream it is a
residual step. A floor loses half a unit on average, and the next constant makes up for it. The
floor before whole constants and another floor costs nothing: floor(floor(t) + n) = floor(t + n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.folded import FoldedActivation, FoldedGate, FoldedShortcut
from bnnhw.network.integer import (
    IntegerActivation,
    IntegerGate,
    IntegerShortcut,
    Requantiser,
    saturation,
)
from bnnhw.network.operations import (
    EXPONENTS,
    GATE_SHIFT,
    INT8_MAX,
    INT16,
    SPATIAL_FRACTION,
    gate_coarse,
)
from bnnhw.network.spec import Convolution, NumberFormats

FINEST_HALF = 1 / 8  # residual steps
FINE_SCALE = 512  # scales of channels beside one of far greater scale reach half of this
OUTLIER = 16
BIAS_LIMIT = 2.0**30


class Overflow(UserError):
    """A scale or constant that needs more than 16 bits. With a smaller fraction it may fit."""


def scale_of(where: str, slope: np.ndarray, formats: NumberFormats) -> np.ndarray:
    """Returns scales int32 (C,) of slopes in steps per half. Raises Overflow."""
    scale = np.round(slope * 2.0**formats.scale_fraction)
    if np.abs(scale).max() > INT16[1]:
        at = int(np.argmax(np.abs(slope)))
        raise Overflow(
            f"{where}.scale[{at}]: half a sum is worth {abs(slope[at]):.6g} residual steps for "
            f"each unit, must stay below {INT16[1] / 2**formats.scale_fraction:.6g}; a smaller "
            f"residual_fraction makes it less"
        )
    return scale.astype(np.int32)


def wide_of(where: str, steps: np.ndarray, formats: NumberFormats,
            carry: np.ndarray | float = 0.0) -> np.ndarray:  # fmt: skip
    """Returns constants (C,) in steps as int32 wide ones, plus `carry`. Raises Overflow.

    carry : wide units.
    """
    wide = np.round(steps * 2.0**formats.guard + carry)
    if np.abs(wide).max() > INT16[1]:
        at = int(np.argmax(np.abs(wide)))
        raise Overflow(
            f"{where}[{at}]: folds to {steps[at]:.6g} residual steps, must stay below "
            f"{INT16[1] / 2**formats.guard:.6g}; a smaller residual_fraction makes it less"
        )
    return wide.astype(np.int32)


@dataclass(frozen=True)
class Room:
    """Which channels may have exponents, so that one of great scale does not coarsen the others.

    share : how many of a layer's channels may have positive ones; always one, unless it is 0.
    None : no channel has any.
    """

    share: float | None


NO_EXPONENTS = Room(None)


def constants(
    where: str, slopes: list[np.ndarray], steps: np.ndarray, carry: np.ndarray | float,
    formats: NumberFormats, room: Room, *, of_sums: bool = False,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray | None]:  # fmt: skip
    """Returns scales, a bias and the exponents of both: int32 (C,). May raise Overflow.

    slopes : steps per half, of each term. steps, carry : as of `wide_of`.
    of_sums : whether halves lose bits for the sake of the greatest slope, so that scales far below
        it are made finer.
    """
    real = [slope * 2.0**formats.scale_fraction for slope in slopes]
    wide = steps * 2.0**formats.guard + carry
    greatest = np.max([*np.abs(real), np.abs(wide)], 0)
    with np.errstate(divide="ignore"):
        exponent = np.ceil(np.log2(greatest / INT16[1])).clip(min=0)
        if of_sums and _stands_out(real[0]):
            finer = np.floor(np.log2(np.abs(real[0]) / FINE_SCALE))
            exponent = np.where(real[0] == 0, exponent, exponent + finer.clip(EXPONENTS[0], 0))
    up = np.count_nonzero(exponent > 0)
    fits = room.share is not None and up <= max(bool(room.share), room.share * len(exponent))
    if not exponent.any() or not fits or exponent.max() > EXPONENTS[1]:
        scales = [scale_of(where, slope, formats) for slope in slopes]
        return scales, wide_of(f"{where}.bias", steps, formats, carry), None
    scales = [np.round(each / 2.0**exponent).clip(*INT16).astype(np.int32) for each in real]
    bias = np.round(wide / 2.0 ** exponent.clip(min=0)).astype(np.int32)
    return scales, bias, exponent.astype(np.int32)


def _stands_out(values: np.ndarray) -> bool:
    """Returns whether the greatest magnitude is far beyond the usual one."""
    magnitudes = np.abs(values[values != 0])
    return bool(len(magnitudes)) and magnitudes.max() > OUTLIER * np.median(magnitudes)


def pre_shift(greatest: int, step: float) -> int:
    """Returns how many bits to drop of sums up to `greatest`, each unit worth `step` steps.

    Enough bits go for half to fit. More go while a half stays a small part of a step: dropping bits
    that do not matter makes the scale greater, and so its rounding finer.
    """
    shift = 0
    while greatest >> shift >> 15 or (shift < 16 and step * 2 ** (shift + 1) <= FINEST_HALF):
        shift += 1
    return shift


def stream_threshold(levels: np.ndarray, formats: NumberFormats) -> np.ndarray:
    """Returns the least residuals, in steps, at or above real levels: int32, of their shape."""
    low, high = saturation(formats.residual_width)
    steps = np.ceil(levels * 2.0**formats.residual_fraction)
    return np.clip(steps, low, high + 1).astype(np.int32)


def sum_threshold(
    value: Callable[[np.ndarray], np.ndarray], level: np.ndarray, fan_in: int
) -> np.ndarray:
    """Returns the least acc in [-fan_in, fan_in] with value(acc) >= level, int32 (C,).

    value : per channel, nowhere falling. Where no acc reaches the level the result is fan_in + 1.
    The search is by bisection. Rounding keeps the comparison monotone, so the answer is that of
    trying every acc.
    """
    low = np.full(level.shape, -fan_in, np.int64)
    high = np.full(level.shape, fan_in + 1, np.int64)
    while (low < high).any():
        middle = (low + high) >> 1
        holds = value(middle) >= level
        high = np.where(holds, middle, high)
        low = np.where(holds | (low >= high), low, middle + 1)
    return high.astype(np.int32)


def two_sided(bits: np.ndarray, formats: NumberFormats) -> tuple[Requantiser, IntegerActivation]:
    """Returns what makes these bits, bool (2n + 1, C), of halves from -n to n.

    A channel's bits are alike but for those up to some half, from some half, or between two. An
    activation of two slopes makes them so. A and B are the halves on either side of the change, and

        t = 2 * half - A - B

    One of |t|, -|t|, t and -t is compared with a constant. All of it is exact: scale and slopes are
    powers of two.
    """
    shift = formats.scale_fraction - formats.guard
    middle, (size, channels) = len(bits) // 2, bits.shape
    first, last = bits.argmax(0), size - 1 - bits[::-1].argmax(0)  # of the bits that are set
    hole = (~bits).argmax(0), size - 1 - (~bits)[::-1].argmax(0)
    rises, falls = ~bits[0] & bits[-1], bits[0] & ~bits[-1]
    cap, cup = ~bits[0] & ~bits[-1], bits[0] & bits[-1] & ~bits.all(0)
    low = np.select([rises, cap, cup], [first, first, hole[0] - 1], last) - middle
    high = np.select([falls, cap, cup], [last, last, hole[1] + 1], first) - middle
    apart = np.select([cap, cup], [high - low, low - high], 0)
    apart = np.where(bits.any(0), np.where(bits.all(0), 0, apart), -1)
    constant = bits.all(0) | ~bits.any(0)
    one = np.where(constant, 0, 1 << shift)
    positive = np.where(falls | cap, -one, one)
    negative = np.where(falls | cup, -one, one)
    none = np.zeros(channels, np.int32)
    scale, bias = np.full(channels, 2 << shift, np.int32), (-low - high).astype(np.int32)
    slopes = positive.astype(np.int32), negative.astype(np.int32)
    act = IntegerActivation(none, *slopes, apart.astype(np.int32))
    return Requantiser(scale, bias, none), act


def activated(x: np.ndarray, part: FoldedActivation | None) -> np.ndarray:
    """Returns the activation of real x (C,)."""
    if part is None:
        return x
    slope = np.where(x >= part.shift_in, part.positive, part.negative)
    y: np.ndarray = slope * (x - part.shift_in) + part.shift_out
    return y


def activation(where: str, part: FoldedActivation, step: float, formats: NumberFormats, *,
               carry_in: float, carry_out: np.ndarray | float) -> IntegerActivation:  # fmt: skip
    """Returns the activation in integers.

    step : 2**fraction. carry_in, carry_out : wide units more in the shifts.
    """
    one = 2.0 ** (formats.scale_fraction - formats.guard)
    slopes = [np.round(slope * one) for slope in (part.positive, part.negative)]
    for kind, slope in zip(("positive", "negative"), slopes, strict=True):
        if np.abs(slope).max() > INT16[1]:
            at = int(np.argmax(np.abs(slope)))
            raise Overflow(
                f"{where}.{kind}[{at}]={slope[at] / one:.6g}: slopes must lie in "
                f"{-INT16[1] / one:.6g} to {INT16[1] / one:.6g}; a smaller scale_fraction or a "
                f"greater guard holds more"
            )
    return IntegerActivation(
        wide_of(f"{where}.shift_in", -part.shift_in * step, formats, carry_in),
        slopes[0].astype(np.int32),
        slopes[1].astype(np.int32),
        wide_of(f"{where}.shift_out", part.shift_out * step, formats, carry_out),
    )


def spatial(factors: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns factors as uint8, the greatest 255, and by what the terms' gains must shrink."""
    greatest = factors.max()
    if greatest <= 0:
        return np.zeros(factors.shape, np.uint8), 1.0
    stretch = 255 / 2.0**SPATIAL_FRACTION / greatest
    return np.round(factors * stretch * 2.0**SPATIAL_FRACTION).astype(np.uint8), stretch


def gate(
    where: str, part: FoldedGate, size: tuple[int, int], formats: NumberFormats
) -> IntegerGate:
    """Returns a gate of maps (height, width). Raises Overflow.

    Hidden numbers have room for means that are all an eighth of the stream's range, with the signs
    of their weights. The weights' units are chosen row by row so that scales are whole.
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
        raise Overflow(
            f"{where}: its weights are too great for its gates; a smaller residual_fraction or "
            f"weights divided by a power of two fit"
        )
    w2 = np.round(part.w2 * (step / 6 * one * one / scale2)[:, None])
    bias2 = (part.b2 / 6 + 0.5) * one + 0.5 * scale2 / one + 0.5
    return IntegerGate(
        w1.astype(np.int8), scale1.astype(np.int32), _int16(bias1),
        w2.astype(np.int8), scale2.astype(np.int32), _int16(bias2),
    )  # fmt: skip


def _int16(values: np.ndarray) -> np.ndarray:
    """Returns values rounded to int32 in signed 16 bits. A clamp would cut off what is beyond."""
    return np.round(values).clip(*INT16).astype(np.int32)


def shortcut_shift(part: FoldedShortcut, shape: Convolution, formats: NumberFormats) -> int:
    """Returns the bits that a 1x1 convolution may drop of its sums; those of the stream are of its
    steps."""
    if part.binary:
        return 1
    row = np.abs(part.weights.astype(np.int64)).sum(1).max()
    step = float(np.abs(part.gain).max()) * 2.0 ** (shape.fraction - shape.shortcut_fraction)
    return pre_shift(int(row) << (formats.residual_width - 1), step)


def shortcut(
    part: FoldedShortcut, shape: Convolution, shift: int, formats: NumberFormats,
    room: Room = NO_EXPONENTS,
) -> IntegerShortcut:  # fmt: skip
    """Returns a 1x1 convolution that drops `shift` bits; its floor's half a unit is in its bias."""
    step, where = 2.0**shape.fraction, f"{shape.name}.shortcut"
    slope = part.gain * (step if part.binary else step / 2.0**shape.shortcut_fraction)
    lost = 0.0 if part.binary else (1 - 2.0**-shift) / 2
    slope = slope * 2.0**shift
    (scale,), bias, exponent = constants(
        where, [slope], part.offset * step + slope * lost, 0.5, formats, room,
        of_sums=not part.binary,
    )  # fmt: skip
    return IntegerShortcut(part.weights, shift, scale, bias, part.binary, exponent)
