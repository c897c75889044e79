"""The integer network: the one contract between machine learning and hardware.

Everything the device computes is defined here, in integers; `bnnhw.golden` runs it.

Features are bits (1 is +1, 0 is -1) and a residual stream of signed fixed-point numbers of
`formats.residual_width` bits, `formats.residual_fraction` of them after the point.

Stem. Pixels are bytes; x = byte - 128 is in [-128, 127], padded taps are x = 0:
    acc = sum x * weight                              exact
    half = acc >> pre_shift                           floor; |half| < 2**15
Binary convolution. x and weight are +-1; a zero-padded tap adds nothing, a minus-one-padded
tap is x = -1. Channel counts are even, so acc is even:
    acc = sum x * weight                              exact
    half = acc / 2                                    exact
Requantisation, of the stem and of each convolution with a shortcut (r = 0 in the stem):
    p = (half * scale) >> (scale_fraction - guard)    floor
    y = saturate(((r << guard) + p + bias) >> guard)  floor; bias carries the rounding half
    bit = y >= threshold                              2**(residual_width-1) means never
    y continues as the residual stream, bit is the next convolution's feature.
A convolution without a shortcut gives bits only: bit = acc >= threshold.
Head. logit = sum over pixels and channels of y * weight, plus bias; class = argmax, the
lowest of equals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnhw.errors import UserError
from bnnhw.spec import Convolution, NetworkSpec


def _array(where: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise UserError(
            f"{where}: needs {np.dtype(dtype).name} {shape}, has {array.dtype.name} {array.shape}"
        )


def _range(where: str, array: np.ndarray, low: int, high: int) -> None:
    if array.size and (array.min() < low or array.max() > high):
        at = int(np.argmax((array < low) | (array > high)))
        raise UserError(f"{where}[{at}]={array.flat[at]}: must lie in [{low}, {high}]")


def saturation(width: int) -> tuple[int, int]:
    """The least and greatest signed number of `width` bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


@dataclass(frozen=True)
class Requantiser:
    """Per-channel half -> residual and bit.

    scale, bias : int32 (C,), each in signed 16 bits. threshold : int32 (C,).
    """

    scale: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class IntegerStem:
    """weights : int8 (out_channels, 3, 3, in_channels) in [-127, 127]."""

    weights: np.ndarray
    pre_shift: int
    requantiser: Requantiser


@dataclass(frozen=True)
class IntegerConvolution:
    """weights : int8 (out_channels, 3, 3, in_channels) of -1 and +1.

    With a shortcut `requantiser` is set; without, `threshold`: int32 (C,) in [-fan_in, fan_in+1].
    """

    shape: Convolution
    weights: np.ndarray
    requantiser: Requantiser | None
    threshold: np.ndarray | None


@dataclass(frozen=True)
class IntegerHead:
    """weights : int8 (classes, C) in [-127, 127]; bias = bias_mantissa << bias_shift.

    bias_mantissa : int8 (classes,) in [-127, 127]; bias_shift in [0, 14].
    """

    weights: np.ndarray
    bias_mantissa: np.ndarray
    bias_shift: int


@dataclass(frozen=True)
class IntegerNetwork:
    """A whole network; checked on construction against its spec."""

    spec: NetworkSpec
    stem: IntegerStem
    convolutions: tuple[IntegerConvolution, ...]
    head: IntegerHead

    def __post_init__(self) -> None:
        spec = self.spec
        first, last = spec.widths[0], spec.widths[-1]
        _array("stem.weights", self.stem.weights, np.int8, (first, 3, 3, spec.input[2]))
        _range("stem.weights", self.stem.weights, -127, 127)
        self._check_requantiser("stem", self.stem.requantiser, first)
        fan_in = 9 * spec.input[2]
        if not 0 <= self.stem.pre_shift <= 16 or (fan_in * 128 * 127) >> self.stem.pre_shift >> 15:
            raise UserError(f"stem.pre_shift={self.stem.pre_shift}: half must fit 16 bits")
        if tuple(conv.shape for conv in self.convolutions) != spec.convolutions():
            raise UserError("convolutions: not those of the spec")
        for conv in self.convolutions:
            shape = conv.shape
            _array(f"{shape.name}.weights", conv.weights, np.int8,
                   (shape.out_channels, 3, 3, shape.in_channels))  # fmt: skip
            if not np.isin(conv.weights, (-1, 1)).all():
                raise UserError(f"{shape.name}.weights: must be -1 or +1")
            if shape.shortcut:
                self._check_requantiser(shape.name, conv.requantiser, shape.out_channels)
            else:
                fan_in = 9 * shape.in_channels
                _array(f"{shape.name}.threshold", conv.threshold, np.int32, (shape.out_channels,))
                _range(f"{shape.name}.threshold", conv.threshold, -fan_in, fan_in + 1)
        _array("head.weights", self.head.weights, np.int8, (spec.classes, last))
        _range("head.weights", self.head.weights, -127, 127)
        _array("head.bias_mantissa", self.head.bias_mantissa, np.int8, (spec.classes,))
        _range("head.bias_mantissa", self.head.bias_mantissa, -127, 127)
        if not 0 <= self.head.bias_shift <= 14:
            raise UserError(f"head.bias_shift={self.head.bias_shift}: must lie in [0, 14]")

    def _check_requantiser(self, where: str, part: Requantiser | None, channels: int) -> None:
        if part is None:
            raise UserError(f"{where}: has a shortcut, so it needs scale, bias and threshold")
        low, high = saturation(self.spec.formats.residual_width)
        limits = dict(scale=saturation(16), bias=saturation(16), threshold=(low, high + 1))
        for name, (least, greatest) in limits.items():
            array = getattr(part, name)
            _array(f"{where}.{name}", array, np.int32, (channels,))
            _range(f"{where}.{name}", array, least, greatest)
