"""The operations of the integer network, exact, on PyTorch integers.

`bnnhw.network.integer` defines them. Maps are NCHW. Everything is int32 (int64 in the head), except
the sums of convolutions.

These are taken in floating point, where they are exact. All terms are whole. No partial sum of a
binary convolution passes 9 * 1024 < 2**24 (float32), none of the others 2**53 (float64). The
results are rounded all the same: a kernel that transforms its operands (Winograd) could leave a
fraction.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnhw.network.integer import (
    IntegerActivation,
    IntegerGate,
    IntegerHead,
    IntegerShortcut,
    IntegerStem,
    saturation,
)
from bnnhw.network.operations import GATE_SHIFT, INT16, SPATIAL_FRACTION, gate_coarse
from bnnhw.network.spec import Convolution, NumberFormats


def channels(array: np.ndarray) -> Tensor:
    """Returns (C,) as it meets a map: (1, C, 1, 1)."""
    return torch.from_numpy(array).reshape(1, -1, 1, 1)


def sat16(x: Tensor) -> Tensor:
    """Returns x saturated to signed 16 bits."""
    return x.clamp(*INT16)


def pixel_bits(x: Tensor, levels: np.ndarray) -> Tensor:
    """Returns bits uint8 (B, C * L, H, W) of pixels uint8 (B, C, H, W)."""
    reached = x[:, :, None] >= torch.from_numpy(levels).reshape(1, 1, -1, 1, 1)
    return reached.flatten(1, 2).to(torch.uint8)


def bordered(x: Tensor, pad: tuple[int, ...]) -> Tensor:
    """Pixels uint8 (B, C, H, W) with the bytes `pad` around them; 128 where it is empty."""
    around = torch.tensor(pad or (128,) * x.shape[1], dtype=torch.uint8)[:, None, None]
    result = around.expand(len(x), -1, x.shape[2] + 2, x.shape[3] + 2).clone()
    result[:, :, 1:-1, 1:-1] = x
    return result


def stem(x: Tensor, part: IntegerStem, pad: tuple[int, ...]) -> Tensor:
    """Pixels uint8 (B, C, H, W) -> acc int32 (B, out_channels, H, W), of the 8-bit stem."""
    weights = torch.from_numpy(part.weights).permute(0, 3, 1, 2)
    acc = F.conv2d(bordered(x, pad).to(torch.float64) - 128, weights.to(torch.float64))
    return acc.round_().to(torch.int32)


def thermometer(x: Tensor, part: IntegerStem, pad: tuple[int, ...]) -> Tensor:
    """Pixels uint8 (B, C, H, W) -> acc int32 of the binary stem whose padded taps are bits, too."""
    assert part.levels is not None
    kernel = torch.from_numpy(part.weights).permute(0, 3, 1, 2).to(torch.float32)
    signs = pixel_bits(bordered(x, pad), part.levels).to(torch.float32) * 2 - 1
    return F.conv2d(signs, kernel).round_().to(torch.int32)


def border(part: np.ndarray, shape: Convolution) -> Tensor:
    """What is added at each position, (1, C, out_H, out_W)."""

    def cases(size: int, out: int) -> Tensor:
        at = torch.ones(out, dtype=torch.long)
        at[0] = 0
        if shape.stride * (out - 1) + 1 >= size:
            at[-1] = 2
        return at

    rows = cases(shape.height, shape.out_height)
    columns = cases(shape.width, shape.out_width)
    return torch.from_numpy(part)[rows][:, columns].permute(2, 0, 1)[None]


def convolution(bits: Tensor, weights: np.ndarray, stride: int, padding: str) -> Tensor:
    """Returns acc int32 (B, O, out_H, out_W) of bits uint8 (B, I, H, W), weights (O, 3, 3, I)."""
    kernel = torch.from_numpy(weights).permute(0, 3, 1, 2).to(torch.float32)
    x = bits.to(torch.float32).mul_(2).sub_(1)
    outside = -1.0 if padding == "minus-one" else 0.0
    x = F.pad(x, (1, 1, 1, 1), value=outside).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, kernel, stride=stride).round_().to(torch.int32)


def scaled(
    half: Tensor, scale: np.ndarray, formats: NumberFormats, exponent: np.ndarray | None = None
) -> Tensor:
    """Returns half * scale as a wide number, int32."""
    product, down = half * channels(scale), formats.scale_fraction - formats.guard
    if exponent is None:
        return product >> down
    power = channels(exponent) - down
    return (product >> (-power).clamp(min=0)) << power.clamp(min=0)


def constant(bias: np.ndarray, exponent: np.ndarray | None) -> Tensor:
    """Returns a bias as wide numbers (1, C, 1, 1)."""
    if exponent is None:
        return channels(bias)
    return channels(bias) << channels(exponent).clamp(min=0)


def spatially_scaled(u: Tensor, spatial: np.ndarray) -> Tensor:
    """Returns wide numbers times the factor of their row and column, uint8 (H, W)."""
    factor = torch.from_numpy(spatial).to(torch.int32)
    return (sat16(u) * factor) >> SPATIAL_FRACTION


def activate(v: Tensor, part: IntegerActivation, formats: NumberFormats) -> Tensor:
    """Returns wide numbers after the activation, wide."""
    t = sat16(v + channels(part.shift_in))
    slope = torch.where(t >= 0, channels(part.positive), channels(part.negative))
    fraction = formats.scale_fraction - formats.guard
    return ((t * slope) >> fraction) + channels(part.shift_out)


def gate(u: Tensor, part: IntegerGate, formats: NumberFormats) -> tuple[Tensor, Tensor]:
    """Returns hidden (B, hidden, 1, 1) and gates (B, C, 1, 1), int32, of wide numbers."""
    height, width = u.shape[2:]
    coarse = gate_coarse(formats)
    even = F.pad(sat16(u), (0, width % 2, 0, height % 2))
    blocks = even[..., ::2, :] + even[..., 1::2, :]
    blocks = blocks[..., ::2] + blocks[..., 1::2]
    x = (blocks >> (2 + coarse)).sum((2, 3), dtype=torch.int64)
    hidden = _layer(x, part.w1, part.scale1, part.bias1, formats).clamp_(0, INT16[1])
    open_ = (1 << (formats.scale_fraction - formats.guard)) - 1
    gates = _layer(hidden >> coarse, part.w2, part.scale2, part.bias2, formats)
    hidden, gates = (y.to(torch.int32)[:, :, None, None] for y in (hidden, gates.clamp_(0, open_)))
    return hidden, gates


def _layer(
    x: Tensor, weights: np.ndarray, scale: np.ndarray, bias: np.ndarray, formats: NumberFormats
) -> Tensor:
    """Returns one of a gate's layers, int64 (B, I) -> (B, O)."""
    half = sat16(_linear(x, torch.from_numpy(weights)) >> GATE_SHIFT)
    fraction = formats.scale_fraction - formats.guard
    return ((half * torch.from_numpy(scale)) >> fraction) + torch.from_numpy(bias)


def _linear(x: Tensor, weights: Tensor) -> Tensor:
    """Returns int64 (B, O) of int64 (B, I) and weights (O, I)."""
    return (x[:, None, :] * weights.to(torch.int64)).sum(2)


def gated(u: Tensor, gates: Tensor, formats: NumberFormats) -> Tensor:
    """Returns wide numbers (B, C, H, W) times gates (B, C, 1, 1)."""
    return (sat16(u) * gates) >> (formats.scale_fraction - formats.guard)


def moved_point(stream: Tensor, shape: Convolution, formats: NumberFormats) -> Tensor:
    """Returns residuals as wide numbers of the convolution's own point."""
    up = formats.guard + shape.fraction - shape.shortcut_fraction
    return stream << up if up >= 0 else stream >> -up


def padded(stream: Tensor, shape: Convolution, formats: NumberFormats) -> Tensor:
    """Returns the stream as the `pad` shortcut adds it, wide."""
    step, front = shape.shortcut_stride, shape.shortcut_offset
    back = shape.out_channels - shape.shortcut_channels - front
    kept = F.pad(stream[:, :, ::step, ::step], (0, 0, 0, 0, front, back))
    return moved_point(kept, shape, formats)


def averaged(stream: Tensor, shape: Convolution, formats: NumberFormats) -> Tensor:
    """Returns the stream as the `avgpool-duplicate` shortcut adds it, wide."""
    height, width = stream.shape[2:]
    rows, columns = (torch.arange(size + size % 2).clamp_(max=size - 1) for size in (height, width))
    even = stream[:, :, rows][..., columns]
    total = even[..., ::2, :] + even[..., 1::2, :]
    total = total[..., ::2] + total[..., 1::2]
    taken = torch.arange(shape.out_channels) % shape.shortcut_channels
    return moved_point(total[:, taken], shape, formats) >> 2


def shortcut_acc(stream: Tensor, shape: Convolution, part: IntegerShortcut) -> Tensor:
    """Returns the 1x1 convolution's sums int32 (B, O, out_H, out_W) of the stream."""
    step = shape.shortcut_stride
    x = stream[:, :, ::step, ::step]
    x = torch.where(x >= 0, 1, -1) if part.binary else x
    weights = torch.from_numpy(part.weights).to(torch.float64)[:, :, None, None]
    return F.conv2d(x.to(torch.float64), weights).round_().to(torch.int32)


def residual(v: Tensor, formats: NumberFormats) -> Tensor:
    """Returns wide numbers as the residual stream."""
    return (v >> formats.guard).clamp_(*saturation(formats.residual_width))


def compare(y: Tensor, thresholds: tuple[np.ndarray, ...]) -> list[Tensor]:
    """Returns y >= threshold for each threshold, uint8."""
    return [(y >= channels(threshold)).to(torch.uint8) for threshold in thresholds]


def head(stream: Tensor, part: IntegerHead) -> Tensor:
    """Returns logits int64 (B, classes) of the residual stream int32 (B, C, H, W)."""
    bias = torch.from_numpy(part.bias_mantissa).to(torch.int64) << part.bias_shift
    return _linear(stream.sum((2, 3), dtype=torch.int64), torch.from_numpy(part.weights)) + bias
