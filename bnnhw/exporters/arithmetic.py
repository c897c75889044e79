"""The arithmetic of bnnhw.network.integer as ONNX nodes.

Maps are float32, whose whole numbers are exact below 2**24. What an operation computes on the way
from sums to the stream is float64, exact below 2**53. A right shift is Mul by a power of two and
Floor. Saturation is Clip. Bits are -1 and +1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnhw.exporters.graph import QONNX, Builder, Tensor
from bnnhw.network.integer import IntegerActivation, saturation
from bnnhw.network.spec import NumberFormats

Shape4 = tuple[int, int, int, int]


class Arithmetic(Builder):
    """A graph of one network's formats, for a batch of so many images."""

    def __init__(self, formats: NumberFormats, batch: int) -> None:
        super().__init__()
        self.formats, self.batch = formats, batch

    def by_channel(self, array: Any, *, wide: bool) -> Tensor:
        """Returns (C,) as it meets a map: (1, C, 1, 1)."""
        given = np.asarray(array)
        return self.constant(given.reshape(1, -1, 1, 1), np.float64 if wide else np.float32)

    def cast(self, x: Tensor, *, wide: bool, **named: Any) -> Tensor:
        """Returns the same numbers as float64 or float32."""
        kind = 11 if wide else 1  # TensorProto.DOUBLE, FLOAT
        return self.emit("Cast", [x], x.shape, wide=wide, to=kind, **named)

    def _with(self, op: str, x: Tensor, array: Any) -> Tensor:
        """x op array, of a number or one for each channel; shapes of x."""
        given = np.asarray(array)
        if given.ndim == 1 and len(x.shape) == 4:
            given = given.reshape(1, -1, 1, 1)
        constant = self.constant(given, x.dtype)
        shape = np.broadcast_shapes(x.shape, constant.shape)
        return self.emit(op, [x, constant], shape)

    def times(self, x: Tensor, array: Any) -> Tensor:
        return self._with("Mul", x, array)

    def plus(self, x: Tensor, array: Any) -> Tensor:
        """x + array; x itself where that is 0."""
        return self._with("Add", x, array) if np.any(array) else x

    def sum(self, x: Tensor, y: Tensor, **named: Any) -> Tensor:
        return self.emit("Add", [x, y], np.broadcast_shapes(x.shape, y.shape), **named)

    def floor(self, x: Tensor, **named: Any) -> Tensor:
        return self.emit("Floor", [x], x.shape, **named)

    def shifted(self, x: Tensor, down: int) -> Tensor:
        """x >> down; x << -down where it is negative."""
        if not down:
            return x
        moved = self.times(x, 2.0**-down)
        return self.floor(moved) if down > 0 else moved

    def clip(self, x: Tensor, low: int, high: int, **named: Any) -> Tensor:
        bounds = [self.constant(np.array(bound), x.dtype) for bound in (low, high)]
        return self.emit("Clip", [x, *bounds], x.shape, **named)

    def sat16(self, x: Tensor) -> Tensor:
        return self.clip(x, *saturation(16))

    def scaled(self, half: Tensor, scale: np.ndarray, exponent: np.ndarray | None) -> Tensor:
        """(half * scale * 2**e) >> (S - G)."""
        down = self.formats.scale_fraction - self.formats.guard
        power = -down if exponent is None else exponent - down
        product = self.times(half, scale * np.exp2(np.asarray(power, np.float64)))
        return self.floor(product) if np.any(np.asarray(power) < 0) else product

    def activated(self, v: Tensor, part: IntegerActivation) -> Tensor:
        fraction = self.formats.scale_fraction - self.formats.guard
        t = self.sat16(self.plus(v, part.shift_in))
        up, down = (
            self.times(t, slope * 2.0**-fraction) for slope in (part.positive, part.negative)
        )
        zero = self.constant(np.zeros(()), t.dtype)
        reached = self.emit("GreaterOrEqual", [t, zero], t.shape, boolean=True)
        chosen = self.emit("Where", [reached, up, down], t.shape)
        return self.plus(self.floor(chosen), part.shift_out)

    def residual(self, v: Tensor, name: str) -> Tensor:
        """Wide numbers as the stream, float32."""
        low, high = saturation(self.formats.residual_width)
        y = self.clip(self.shifted(v, self.formats.guard), low, high)
        return self.cast(y, wide=False, name=name, datatype=f"INT{self.formats.residual_width}")

    def bits(self, x: Tensor, threshold: Any, name: str = "") -> Tensor:
        """+1 where x >= threshold of its channel, else -1."""
        levels = np.broadcast_to(np.asarray(threshold, np.float32), x.shape[1:2])
        return self.emit(
            "MultiThreshold", [x, self.constant(levels.reshape(-1, 1))], x.shape, name=name,
            domain=QONNX, datatype="BIPOLAR", out_dtype="BIPOLAR", out_scale=2.0, out_bias=-1.0,
            data_layout="NCHW",
        )  # fmt: skip

    def binary(self, weights: np.ndarray) -> Tensor:
        """Signs int8 (O, kh, kw, I) as weights of a convolution."""
        given = self.constant(weights.transpose(0, 3, 1, 2))
        one = self.constant(np.ones(()))
        return self.emit("BipolarQuant", [given, one], given.shape, domain=QONNX,
                         datatype="BIPOLAR")  # fmt: skip

    def bytes(self, weights: np.ndarray) -> Tensor:
        """Whole numbers int8 as weights, float32."""
        given = self.constant(weights)
        parts = [self.constant(np.array(value)) for value in (1.0, 0.0, 8.0)]
        return self.emit(
            "Quant", [given, *parts], given.shape, domain=QONNX, datatype="INT8", signed=1,
            narrow=1, rounding_mode="ROUND",
        )  # fmt: skip

    def convolved(
        self, x: Tensor, weights: Tensor, stride: int, around: float | None, name: str = ""
    ) -> Tensor:
        """Sums of a convolution. around : what padded values are; None where there are none."""
        batch, _, height, width = x.shape
        kernel = weights.shape[2:]
        if around:
            x = self.padded(x, [0, 0, 1, 1], [0, 0, 1, 1], around)
        pads = [0 if around or around is None else 1] * 4
        edge = 0 if around is None else 2
        height, width = (
            (size + edge - taps) // stride + 1
            for size, taps in zip((height, width), kernel, strict=True)
        )
        return self.emit(
            "Conv", [x, weights], (batch, weights.shape[0], height, width), name=name,
            kernel_shape=[*kernel], strides=[stride] * 2, pads=pads, dilations=[1, 1], group=1,
        )  # fmt: skip

    def padded(
        self, x: Tensor, begin: list[int], end: list[int], value: float = 0.0,
        mode: str = "constant",
    ) -> Tensor:  # fmt: skip
        """x with so many values more at each axis's begin and end."""
        if not any(begin + end):
            return x
        shape = tuple(sum(sizes) for sizes in zip(x.shape, begin, end, strict=True))
        pads = self.constant(begin + end, np.int64)
        inputs = [x, pads]
        if mode == "constant":
            inputs.append(self.constant(np.array(value), x.dtype))
        return self.emit("Pad", inputs, shape, mode=mode)

    def subsampled(self, x: Tensor, step: int) -> Tensor:
        """Every other pixel from the first on, or x itself."""
        if step == 1:
            return x
        batch, channels, height, width = x.shape
        parts = [
            self.constant(np.array(values), np.int64)
            for values in ([0, 0], [height, width], [2, 3], [step, step])
        ]
        shape = (batch, channels, -(-height // step), -(-width // step))
        return self.emit("Slice", [x, *parts], shape)

    def reshaped(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.emit("Reshape", [x, self.constant(np.array(shape), np.int64)], shape)

    def total(self, x: Tensor, axes: list[int]) -> Tensor:
        """The sum over axes, which go."""
        shape = tuple(size for at, size in enumerate(x.shape) if at not in axes)
        given = self.constant(np.array(axes), np.int64)
        return self.emit("ReduceSum", [x, given], shape, keepdims=0)

    def linear(self, x: Tensor, weights: np.ndarray) -> Tensor:
        """(N, I) times weights (O, I), float64: (N, O)."""
        given = self.constant(weights.T, np.float64)
        return self.emit("MatMul", [x, given], (x.shape[0], len(weights)))
