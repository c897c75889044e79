"""IntegerNetwork -> QONNX: a graph whose every tensor is the golden model's.

The input is the bytes of the image as float32 (N, C, H, W), the output the logits, whole numbers in
float64. Tensors have the golden model's names; bits are -1 and +1. bnnhw.exporters.arithmetic says
how rounding and saturation are written. Every method of a spec can be.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bnnhw.errors import UserError
from bnnhw.exporters.arithmetic import Arithmetic
from bnnhw.exporters.graph import Tensor
from bnnhw.network.integer import (
    IntegerConvolution,
    IntegerGate,
    IntegerHead,
    IntegerNetwork,
    IntegerShortcut,
    structure,
)
from bnnhw.network.operations import GATE_SHIFT, INT16, SPATIAL_FRACTION, gate_coarse
from bnnhw.network.spec import Convolution

EXACT = 1 << 24  # whole numbers below are exact in float32
LARGEST_BATCH = 1 << 16


def export_qonnx(network: IntegerNetwork, *, batch: int = 1) -> Any:
    """Returns an onnx.ModelProto that takes so many images at once."""
    if not 1 <= batch <= LARGEST_BATCH:
        raise UserError(f"batch={batch}: must be from 1 to {LARGEST_BATCH}")
    return _Export(network, batch).run()


def _numbered(name: str, at: int) -> str:
    return f"{name}{at or ''}"


def _constant(bias: np.ndarray, exponent: np.ndarray | None) -> np.ndarray:
    wide: np.ndarray = bias.astype(np.float64)
    return wide if exponent is None else wide * np.exp2(np.maximum(exponent, 0))


def _border(border: np.ndarray, shape: Convolution) -> np.ndarray:
    """(3, 3, C) at each position of the output: (1, C, H, W)."""

    def cases(size: int, out: int) -> list[int]:
        last = shape.stride * (out - 1) + 1  # the row below the window's middle
        return [0, *(1 for _ in range(out - 2)), 2 if last >= size else 1][:out]

    rows = cases(shape.height, shape.out_height)
    columns = cases(shape.width, shape.out_width)
    return border[rows][:, columns].transpose(2, 0, 1)[None]


class _Export(Arithmetic):
    def __init__(self, network: IntegerNetwork, batch: int) -> None:
        super().__init__(network.spec.formats, batch)
        self.network, self.spec = network, network.spec

    def run(self) -> Any:
        height, width, colours = self.spec.input
        image = Tensor("input", (self.batch, colours, height, width), False)
        self.annotate(image, "UINT8")
        stream, bits = self._stem(image)
        for part in self.network.convolutions:
            stream, bits = self._convolution(part, stream, bits)
        logits = self._head(stream, self.network.head)
        described = json.dumps(self.spec.to_dict())
        return self.model(image, logits, {"bnnhw_spec": described})

    def _compared(self, y: Tensor, thresholds: tuple[np.ndarray, ...], name: str) -> list[Tensor]:
        return [
            self.bits(y, each, _numbered(f"{name}.bits", at)) for at, each in enumerate(thresholds)
        ]

    def _stem(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        stem = self.network.stem
        acc = self._sums(image) if stem.levels is None else self._thermometer(image, stem.levels)
        part = stem.requantiser
        half = self.shifted(self.cast(acc, wide=True), stem.pre_shift)
        v = self.scaled(half, part.scale, part.exponent)
        v = self.plus(v, _constant(part.bias, part.exponent))
        if stem.activation is not None:
            v = self.activated(v, stem.activation)
        y = self.residual(v, "stem.residual")
        return y, self._compared(y, part.thresholds, "stem")

    def _sums(self, image: Tensor) -> Tensor:
        """The 8-bit stem's: of bytes less the padded one, and what that makes more."""
        weights, colours = self.network.stem.weights, self.spec.input[2]
        pad = np.array(self.spec.pad or (128,) * colours)
        more = (weights.astype(np.int64) * (pad - 128)).sum((1, 2, 3))
        given = self.bytes(weights.transpose(0, 3, 1, 2))
        x = self.plus(image, -pad)
        if not more.any():
            return self.convolved(x, given, 1, 0.0, "stem.acc")
        acc, offset = self.convolved(x, given, 1, 0.0), self.by_channel(more, wide=False)
        return self.sum(acc, offset, name="stem.acc")

    def _thermometer(self, image: Tensor, levels: np.ndarray) -> Tensor:
        """The binary stem's: a 1x1 convolution has each colour as often as there are levels."""
        colours, count = self.spec.input[2], len(levels)
        copies = np.repeat(np.eye(colours), count, 0)[:, :, None, None]
        weights, pad = self.binary(self.network.stem.weights), self.spec.pad

        def bits_of(x: Tensor, less: np.ndarray, name: str) -> Tensor:
            copied = self.convolved(x, self.constant(copies), 1, None)
            return self.bits(copied, (levels - less[:, None]).reshape(-1), name)

        bits = bits_of(image, np.zeros(colours), "input.bits")
        if not pad:
            return self.convolved(
                bits, weights, 1, self._around(self.spec.repair.padding), "stem.acc"
            )
        around = self.padded(self.plus(image, -np.array(pad)), [0, 0, 1, 1], [0, 0, 1, 1])
        return self.convolved(bits_of(around, np.array(pad), ""), weights, 1, None, "stem.acc")

    def _around(self, padding: str) -> float:
        return -1.0 if padding == "minus-one" else 0.0

    def _convolution(
        self, part: IntegerConvolution, stream: Tensor, bits: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns stream and bits after a layer."""
        shape = part.shape
        around = self._around((shape.repair or self.spec.repair).padding)
        terms = [(part.weights, 0), *((term.weights, term.feature) for term in part.further)]
        accs = [
            self.convolved(
                bits[feature], self.binary(weights), shape.stride, around,
                _numbered(f"{shape.name}.acc", at),
            )
            for at, (weights, feature) in enumerate(terms)
        ]  # fmt: skip
        if part.requantiser is None:
            assert part.threshold is not None
            return stream, self._compared(accs[0], (part.threshold,), shape.name)
        y = self._requantised(part, accs, stream)
        made = self._compared(y, part.requantiser.thresholds, shape.name)
        return (y if shape.shortcut else stream), made

    def _requantised(self, part: IntegerConvolution, accs: list[Tensor], stream: Tensor) -> Tensor:
        shape, numbers = part.shape, part.requantiser
        assert numbers is not None
        added = self._shortcut(part, stream) if shape.shortcut else None
        first = all(step is None for step in (part.spatial, part.before, part.gate))
        scales = (numbers.scale, *(term.scale for term in part.further))
        u: Tensor | None = None
        for acc, scale in zip(accs, scales, strict=True):
            half = self.times(self.cast(acc, wide=True), 0.5)  # sums are even
            product = self.scaled(half, scale, numbers.exponent)
            u = product if u is None else self.sum(self.sat16(u), product)
            if acc is accs[0] and added is not None and first:
                u = self.sum(u, added)
        assert u is not None
        if part.spatial is not None:
            factor = part.spatial[None, None] * 2.0**-SPATIAL_FRACTION
            u = self.floor(self.times(self.sat16(u), factor))
        u = self.plus(u, _constant(numbers.bias, numbers.exponent))
        if part.border is not None:
            u = self.plus(u, _border(part.border, shape))
        if part.before is not None:
            u = self.activated(u, part.before)
        if part.gate is not None:
            u = self._gated(u, part.gate, shape.name)
        if added is not None and not first:
            u = self.sum(u, added)
        if part.after is not None:
            u = self.activated(u, part.after)
        elif part.gate is not None:
            u = self.plus(u, 2.0 ** (self.formats.guard - 1))
        name = f"{shape.name}.residual" if shape.shortcut else ""
        return self.residual(u, name)

    def _gated(self, u: Tensor, part: IntegerGate, name: str) -> Tensor:
        batch, channels, height, width = u.shape
        coarse = gate_coarse(self.formats)
        fraction = self.formats.scale_fraction - self.formats.guard
        values = self.sat16(u)
        even = self.padded(values, [0] * 4, [0, 0, height % 2, width % 2])
        rows, columns = -(-height // 2), -(-width // 2)
        split = self.reshaped(even, (batch, channels, rows, 2, columns, 2))
        x = self.total(self.shifted(self.total(split, [3, 5]), 2 + coarse), [2, 3])

        def layer(x: Tensor, weights: np.ndarray, scale: np.ndarray, bias: np.ndarray,
                  high: int, tap: str) -> Tensor:  # fmt: skip
            half = self.sat16(self.shifted(self.linear(x, weights), GATE_SHIFT))
            product = self.floor(self.times(half, scale * 2.0**-fraction))
            return self.clip(self.plus(product, bias), 0, high, name=f"{name}.{tap}")

        hidden = layer(x, part.w1, part.scale1, part.bias1, INT16[1], "hidden")
        taken = self.shifted(hidden, coarse)
        gates = layer(taken, part.w2, part.scale2, part.bias2, (1 << fraction) - 1, "gate")
        factors = self.times(self.reshaped(gates, (batch, channels, 1, 1)), 2.0**-fraction)
        return self.floor(self.emit("Mul", [values, factors], values.shape))

    def _shortcut(self, part: IntegerConvolution, stream: Tensor) -> Tensor:
        """What is added, wide."""
        shape = part.shape
        up = self.formats.guard + shape.fraction - shape.shortcut_fraction
        if part.shortcut is not None:
            return self._convolved_shortcut(part.shortcut, shape, stream)
        if not structure(shape, self.spec.repair).averages:
            kept = self.subsampled(stream, shape.shortcut_stride)
            front = shape.shortcut_offset
            back = shape.out_channels - shape.shortcut_channels - front
            whole = self.padded(kept, [0, front, 0, 0], [0, back, 0, 0])
            return self.shifted(self.cast(whole, wide=True), -up)
        batch, channels, height, width = stream.shape
        even = self.padded(stream, [0] * 4, [0, 0, height % 2, width % 2], mode="edge")
        means = self.emit(
            "AveragePool", [even], (batch, channels, shape.out_height, shape.out_width),
            kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4,
        )  # fmt: skip
        taken = self.constant(np.arange(shape.out_channels) % channels, np.int64)
        size = (batch, shape.out_channels, *means.shape[2:])
        copied = self.emit("Gather", [means, taken], size, axis=1)
        return self.floor(self.times(self.cast(copied, wide=True), 2.0**up))

    def _convolved_shortcut(
        self, part: IntegerShortcut, shape: Convolution, stream: Tensor
    ) -> Tensor:
        name, kept = f"{shape.name}.shortcut.acc", self.subsampled(stream, shape.shortcut_stride)
        if part.binary:
            taps = part.weights[:, None, None]
            acc = self.convolved(self.bits(kept, 0.0), self.binary(taps), 1, None, name)
        else:
            acc = self._long_sums(kept, part.weights, name)
        half = self.shifted(acc if acc.wide else self.cast(acc, wide=True), part.pre_shift)
        wide = self.scaled(half, part.scale, part.exponent)
        return self.sat16(self.plus(wide, _constant(part.bias, part.exponent)))

    def _long_sums(self, x: Tensor, weights: np.ndarray, name: str) -> Tensor:
        """An 8-bit 1x1 convolution: of float32 where its sums are exact in that."""
        greatest = 1 << (self.formats.residual_width - 1)
        if (np.abs(weights.astype(np.int64)).sum(1) * greatest).max() < EXACT:
            given = self.bytes(weights[:, :, None, None])
            return self.convolved(x, given, 1, None, name)
        batch, _, height, width = x.shape
        last = self.emit("Transpose", [self.cast(x, wide=True)], (batch, height, width, x.shape[1]),
                         perm=[0, 2, 3, 1])  # fmt: skip
        given = self.constant(weights.T, np.float64)
        sums = self.emit("MatMul", [last, given], (batch, height, width, len(weights)))
        shape = (batch, len(weights), height, width)
        return self.emit("Transpose", [sums], shape, name=name, perm=[0, 3, 1, 2])

    def _head(self, stream: Tensor, part: IntegerHead) -> Tensor:
        sums = self.total(self.cast(stream, wide=True), [2, 3])
        bias = part.bias_mantissa.astype(np.float64) * 2.0**part.bias_shift
        logits = self.linear(sums, part.weights)
        return self.sum(logits, self.constant(bias, np.float64), name="head.logits")
