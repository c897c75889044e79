"""The arrays of one operation of the integer network, and what they may hold.

`bnnhw.network.integer` defines what is computed from them. Every `check` raises UserError naming
the array, its value and the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec, NumberFormats, thermometer_levels

ACC_LIMIT = 1 << 31  # magnitudes of sums stay below


def check_array(where: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    """Whether it has this type and shape."""
    if array.dtype != dtype or array.shape != shape:
        raise UserError(
            f"{where}: needs {np.dtype(dtype).name} {shape}, has {array.dtype.name} {array.shape}"
        )


def check_range(where: str, array: np.ndarray, low: int, high: int) -> None:
    """Whether every value lies in [low, high]."""
    if array.size and (array.min() < low or array.max() > high):
        at = int(np.argmax((array < low) | (array > high)))
        raise UserError(f"{where}[{at}]={array.flat[at]}: must lie in [{low}, {high}]")


def check_signs(where: str, weights: np.ndarray, shape: tuple[int, ...]) -> None:
    """Whether these are binary weights of this shape."""
    check_array(where, weights, np.int8, shape)
    if not np.isin(weights, (-1, 1)).all():
        raise UserError(f"{where}: must be -1 or +1")


def check_shift(where: str, shift: int, high: int) -> None:
    """Whether it is a right shift of at most `high` bits."""
    if not 0 <= shift <= high:
        raise UserError(f"{where}={shift}: must lie in [0, {high}]")


def check_sums(where: str, weights: np.ndarray, greatest: int, bias: np.ndarray | int = 0) -> None:
    """Whether inputs of this magnitude keep each row's sum, bias included, in 32 bits."""
    sums = np.abs(weights.astype(np.int64)).sum(1) * greatest + np.abs(np.int64(bias))
    if sums.size and sums.max() >= ACC_LIMIT:
        at = int(np.argmax(sums))
        raise UserError(f"{where}[{at}]: its sum reaches {sums[at]}, must stay below {ACC_LIMIT}")


def check_exponent(where: str, exponent: np.ndarray | None, channels: int) -> None:
    """Whether these are exponents of so many channels, or none."""
    if exponent is not None:
        check_array(f"{where}.exponent", exponent, np.int32, (channels,))
        check_range(f"{where}.exponent", exponent, *EXPONENTS)


def check_product(
    where: str, halves: int, scale: np.ndarray, exponent: np.ndarray | None, formats: NumberFormats
) -> None:
    """Whether halves up to this magnitude, scaled, stay below PRODUCT_LIMIT."""
    if exponent is not None:
        power = exponent - (formats.scale_fraction - formats.guard)
        reached = np.abs(scale) * 2.0**power * halves
        if reached.max() >= PRODUCT_LIMIT:
            at = int(np.argmax(reached))
            raise UserError(
                f"{where}.exponent[{at}]={exponent[at]}: numbers reach {reached[at]:.6g}, must "
                f"stay below {PRODUCT_LIMIT}"
            )


def saturation(width: int) -> tuple[int, int]:
    """The least and greatest signed number of `width` bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


INT16 = saturation(16)
INT8_MAX = 127  # of weights, whose least is its negative
EXPONENTS = (-8, 12)
PRODUCT_LIMIT = 1 << 30  # magnitudes of scaled halves, where they have exponents
SPATIAL_FRACTION = 6
GATE_SHIFT = 8  # bits dropped of a gate layer's sums


def gate_coarse(formats: NumberFormats) -> int:
    """Bits dropped of what a gate's layers take: about ten are left of the stream's range."""
    return max(0, formats.residual_width + formats.guard - 10)


def _check_channels(where: str, part: object, names: tuple[str, ...], channels: int,
                    low: int, high: int) -> None:  # fmt: skip
    for name in names:
        array = getattr(part, name)
        check_array(f"{where}.{name}", array, np.int32, (channels,))
        check_range(f"{where}.{name}", array, low, high)


@dataclass(frozen=True)
class Requantiser:
    """Per-channel half -> residual and bits.

    scale, bias : int32 (C,), each in signed 16 bits.
    threshold : int32 (C,), or (N, C) where N > 1 bits are made of each residual.
    exponent : None, which is 0 throughout, or int32 (C,) in EXPONENTS: powers of two by which a
        channel's scales, and above 0 its bias, count more.
    """

    scale: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray
    exponent: np.ndarray | None = None

    @property
    def thresholds(self) -> tuple[np.ndarray, ...]:
        """One (C,) for each bit that is made of a residual."""
        return tuple(np.atleast_2d(self.threshold))

    def check(self, where: str, channels: int, features: int, formats: NumberFormats) -> None:
        _check_channels(where, self, ("scale", "bias"), channels, *INT16)
        check_exponent(where, self.exponent, channels)
        low, high = saturation(formats.residual_width)
        shape = (channels,) if features == 1 else (features, channels)
        check_array(f"{where}.threshold", self.threshold, np.int32, shape)
        check_range(f"{where}.threshold", self.threshold, low, high + 1)


@dataclass(frozen=True)
class IntegerTerm:
    """A further convolution whose scaled sums are added.

    weights : int8 (O, 3, 3, I) of -1 and +1; (1, 3, 3, I) if all outputs share them.
    scale : int32 (O,) in signed 16 bits. feature : which of the input's bits it takes.
    """

    weights: np.ndarray
    scale: np.ndarray
    feature: int

    def check(self, where: str, shape: tuple[int, ...], channels: int) -> None:
        check_signs(f"{where}.weights", self.weights, shape)
        _check_channels(where, self, ("scale",), channels, *INT16)


@dataclass(frozen=True)
class IntegerActivation:
    """shift_in, shift_out : int32 (C,) in signed 16 bits, wide units.

    positive, negative : int32 (C,) in signed 16 bits, scale_fraction - guard of them after the
        point.
    """

    shift_in: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    shift_out: np.ndarray

    def check(self, where: str, channels: int) -> None:
        names = ("shift_in", "positive", "negative", "shift_out")
        _check_channels(where, self, names, channels, *INT16)


@dataclass(frozen=True)
class IntegerGate:
    """Two layers of int8 weights: w1 (hidden, C), w2 (C, hidden).

    scale, bias : of each, int32 (outputs,) in signed 16 bits.
    """

    w1: np.ndarray
    scale1: np.ndarray
    bias1: np.ndarray
    w2: np.ndarray
    scale2: np.ndarray
    bias2: np.ndarray

    def check(self, where: str, shape: tuple[int, int, int], formats: NumberFormats) -> None:
        """shape : (height, width, channels) of the gated map."""
        height, width, channels = shape
        hidden, greatest = len(self.w1), -INT16[0] >> gate_coarse(formats)
        blocks = -(-height // 2) * -(-width // 2)
        check_array(f"{where}.w1", self.w1, np.int8, (hidden, channels))
        check_array(f"{where}.w2", self.w2, np.int8, (channels, hidden))
        check_sums(f"{where}.w1", self.w1, blocks * greatest)
        check_sums(f"{where}.w2", self.w2, greatest)
        _check_channels(where, self, ("scale1", "bias1"), hidden, *INT16)
        _check_channels(where, self, ("scale2", "bias2"), channels, *INT16)


@dataclass(frozen=True)
class IntegerShortcut:
    """A 1x1 convolution of the stream: half = acc >> pre_shift, scaled and shifted per channel.

    binary : whether it takes the stream's signs: weights are -1 and +1 and pre_shift is 1;
        otherwise its values, and weights lie in [-127, 127].
    weights : int8 (O, I). scale, bias : int32 (O,) in signed 16 bits, bias in wide units.
    exponent : as of a Requantiser.
    """

    weights: np.ndarray
    pre_shift: int
    scale: np.ndarray
    bias: np.ndarray
    binary: bool
    exponent: np.ndarray | None = None

    def check(self, where: str, shape: tuple[int, int], formats: NumberFormats) -> None:
        _check_channels(where, self, ("scale", "bias"), shape[0], *INT16)
        check_exponent(where, self.exponent, shape[0])
        halves = shape[1] if self.binary else 1 << 15
        check_product(where, halves, self.scale, self.exponent, formats)
        if self.binary:
            check_signs(f"{where}.weights", self.weights, shape)
            if self.pre_shift != 1:
                raise UserError(f"{where}.pre_shift={self.pre_shift}: must be 1, halving sums")
            return
        check_array(f"{where}.weights", self.weights, np.int8, shape)
        check_range(f"{where}.weights", self.weights, -127, 127)
        greatest = 1 << (formats.residual_width - 1)
        check_sums(f"{where}.weights", self.weights, greatest)
        check_shift(f"{where}.pre_shift", self.pre_shift, 24)
        sums = np.abs(self.weights.astype(np.int64)).sum(1) * greatest
        if int(sums.max()) >> self.pre_shift >> 15:
            raise UserError(f"{where}.pre_shift={self.pre_shift}: half must fit 16 bits")


@dataclass(frozen=True)
class IntegerStem:
    """weights : int8 (out_channels, 3, 3, in_channels) in [-127, 127].

    levels : None; for the binary stem uint8 (L,), spec.levels or spec.thermometer_levels(L) of an
        even L, weights being -1 and +1 for in_channels * L bits and pre_shift 1.
    activation : where spec.stem_activation has one.
    """

    weights: np.ndarray
    pre_shift: int
    requantiser: Requantiser
    levels: np.ndarray | None = None
    activation: IntegerActivation | None = None

    def check(self, spec: NetworkSpec) -> None:
        if (self.activation is not None) != (spec.stem_activation != "none"):
            raise UserError(f"stem.activation: not that of stem_activation={spec.stem_activation}")
        if self.activation is not None:
            self.activation.check("stem.activation", spec.stem_channels)
        out, channels = spec.stem_channels, spec.input[2]
        if (self.levels is not None) != (spec.repair.stem == "thermometer"):
            raise UserError(f"stem.levels: not those of a stem={spec.repair.stem}")
        if self.levels is None:
            check_array("stem.weights", self.weights, np.int8, (out, 3, 3, channels))
            check_range("stem.weights", self.weights, -127, 127)
            fits = (9 * channels * 128 * 127) >> max(0, self.pre_shift) >> 15 == 0
            if not 0 <= self.pre_shift <= 16 or not fits:
                raise UserError(f"stem.pre_shift={self.pre_shift}: half must fit 16 bits")
        else:
            check_array("stem.levels", self.levels, np.uint8, (len(self.levels),))
            count = len(self.levels)
            if count % 2 or not 2 <= count <= 254:
                raise UserError(f"stem.levels: has {count}, must be an even number from 2 to 254")
            if spec.levels and self.levels.tolist() != list(spec.levels):
                raise UserError(f"stem.levels: are not the spec's {spec.levels}")
            if not spec.levels and self.levels.tolist() != thermometer_levels(count):
                raise UserError(f"stem.levels: must cut bytes in {count + 1} equal parts")
            check_signs("stem.weights", self.weights, (out, 3, 3, channels * len(self.levels)))
            if self.pre_shift != 1:
                raise UserError(f"stem.pre_shift={self.pre_shift}: must be 1, halving sums")
        part = self.requantiser
        part.check("stem", out, spec.repair.features, spec.formats)
        halves = 1 << 15 if self.levels is None else 9 * channels * len(self.levels) // 2
        check_product("stem", halves, part.scale, part.exponent, spec.formats)


@dataclass(frozen=True)
class IntegerHead:
    """weights : int8 (classes, C) in [-127, 127]; bias = bias_mantissa << bias_shift.

    bias_mantissa : int8 (classes,) in [-127, 127]; bias_shift in [0, 14].
    """

    weights: np.ndarray
    bias_mantissa: np.ndarray
    bias_shift: int

    def check(self, spec: NetworkSpec) -> None:
        check_array("head.weights", self.weights, np.int8, (spec.classes, spec.widths[-1]))
        check_range("head.weights", self.weights, -127, 127)
        check_array("head.bias_mantissa", self.bias_mantissa, np.int8, (spec.classes,))
        check_range("head.bias_mantissa", self.bias_mantissa, -127, 127)
        check_shift("head.bias_shift", self.bias_shift, 14)
