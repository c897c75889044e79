"""Runs an IntegerNetwork exactly; every tensor can be tapped by name.

The semantics are those of bnnhw.integer. Everything is int32 (int64 in the head) but the
convolutions' sums, which are taken in floating point, where they are exact: all terms are whole,
and no partial sum of a binary convolution passes 9 * 1024 < 2**24 (float32) or of the stem
9 * 8 * 128 * 127 < 2**53 (float64). The results are rounded all the same, so that a kernel that
transforms its operands (Winograd) could not leave a fraction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnhw.errors import UserError
from bnnhw.integer import (
    IntegerConvolution,
    IntegerHead,
    IntegerNetwork,
    IntegerStem,
    Requantiser,
    saturation,
)
from bnnhw.spec import Convolution, NetworkSpec, NumberFormats

Keep = Callable[[str, Tensor], None]
ALWAYS = ("head.logits", "class")
BATCH = 100


def tap_names(spec: NetworkSpec) -> tuple[str, ...]:
    """Every tensor's name in order of computation.

    input uint8 (N, H, W, C); stem.acc, NAME.acc int32 and stem.residual, NAME.residual int32
    (where there is a shortcut) and stem.bits, NAME.bits uint8 of 0 and 1, all NHWC;
    head.logits int64 (N, classes); class int64 (N,).
    """
    names = ["input", "stem.acc", "stem.residual", "stem.bits"]
    for shape in spec.convolutions():
        kinds = ("acc", "residual", "bits") if shape.shortcut else ("acc", "bits")
        names += [f"{shape.name}.{kind}" for kind in kinds]
    return (*names, *ALWAYS)


def stem(x: Tensor, part: IntegerStem) -> Tensor:
    """Pixels uint8 (B, C, H, W) -> acc int32 (B, out_channels, H, W)."""
    weights = torch.from_numpy(part.weights).permute(0, 3, 1, 2)
    acc = F.conv2d(x.to(torch.float64) - 128, weights.to(torch.float64), padding=1)
    return acc.round_().to(torch.int32)


def convolution(bits: Tensor, part: IntegerConvolution, padding: str) -> Tensor:
    """Bits uint8 (B, C, H, W) of 0 and 1 -> acc int32 (B, out_channels, out_H, out_W)."""
    weights = torch.from_numpy(part.weights).permute(0, 3, 1, 2).to(torch.float32)
    x = bits.to(torch.float32).mul_(2).sub_(1)
    outside = -1.0 if padding == "minus-one" else 0.0
    x = F.pad(x, (1, 1, 1, 1), value=outside).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weights, stride=part.shape.stride).round_().to(torch.int32)


def shortcut(stream: Tensor, shape: Convolution) -> Tensor:
    """The stream int32 (B, C, H, W) as it is added to a convolution's output."""
    step, front = shape.shortcut_stride, shape.shortcut_offset
    back = shape.out_channels - shape.shortcut_channels - front
    return F.pad(stream[:, :, ::step, ::step], (0, 0, 0, 0, front, back))


def requantise(
    half: Tensor, stream: Tensor | None, part: Requantiser, formats: NumberFormats
) -> tuple[Tensor, Tensor]:
    """half int32 (B, C, H, W) and the shortcut -> residual int32 and bits uint8, same shape."""
    scale, bias, threshold = (
        torch.from_numpy(array).reshape(1, -1, 1, 1)
        for array in (part.scale, part.bias, part.threshold)
    )
    y = (half * scale) >> (formats.scale_fraction - formats.guard)
    y += bias
    if stream is not None:
        y += stream << formats.guard
    y >>= formats.guard
    y.clamp_(*saturation(formats.residual_width))
    return y, (y >= threshold).to(torch.uint8)


def head(stream: Tensor, part: IntegerHead) -> Tensor:
    """Residual stream int32 (B, C, H, W) -> logits int64 (B, classes)."""
    weights = torch.from_numpy(part.weights).to(torch.int64)
    bias = torch.from_numpy(part.bias_mantissa).to(torch.int64) << part.bias_shift
    return (stream.sum((2, 3), dtype=torch.int64)[:, None, :] * weights).sum(2) + bias


def _forward(network: IntegerNetwork, pixels: Tensor, keep: Keep) -> None:
    """One batch, uint8 (B, C, H, W); `keep` is given every tensor."""
    formats, padding = network.spec.formats, network.spec.repair.padding
    keep("input", pixels)
    acc = stem(pixels, network.stem)
    keep("stem.acc", acc)
    half = acc >> network.stem.pre_shift
    stream, bits = requantise(half, None, network.stem.requantiser, formats)
    keep("stem.residual", stream)
    keep("stem.bits", bits)
    for part in network.convolutions:
        name = part.shape.name
        acc = convolution(bits, part, padding)
        keep(f"{name}.acc", acc)
        if part.requantiser is not None:
            added = shortcut(stream, part.shape)
            half = acc >> 1  # acc is even, so this is exact
            stream, bits = requantise(half, added, part.requantiser, formats)
            keep(f"{name}.residual", stream)
        else:
            bits = (acc >= torch.from_numpy(part.threshold).reshape(1, -1, 1, 1)).to(torch.uint8)
        keep(f"{name}.bits", bits)
    logits = head(stream, network.head)
    keep("head.logits", logits)
    keep("class", torch.from_numpy(logits.numpy().argmax(1)))  # numpy: the lowest of equals


def _wanted(spec: NetworkSpec, taps: Iterable[str] | None) -> set[str]:
    known = tap_names(spec)
    if taps == "all":
        return set(known)
    wanted = {taps} if isinstance(taps, str) else set(taps or ())
    for name in sorted(wanted - set(known)):
        raise UserError(f"tap {name!r}: no such tensor; choose from {', '.join(known)}")
    return wanted | set(ALWAYS)


@torch.inference_mode()
def run(
    network: IntegerNetwork,
    images: np.ndarray | Tensor,
    taps: Iterable[str] | None = None,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """Run uint8 images (N, H, W, C) and return the tensors named by `taps` ("all": every one).

    "head.logits" and "class" are always among them; names, types and shapes: `tap_names`.
    progress : called with the number of images done after every batch.
    """
    wanted = _wanted(network.spec, taps)
    pixels = torch.as_tensor(np.ascontiguousarray(images))
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != network.spec.input:
        raise UserError(
            f"images: needs uint8 (N, {', '.join(map(str, network.spec.input))}), has "
            f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
        )
    if not len(pixels):
        raise UserError("images: there are none; give at least one")
    kept: dict[str, list[np.ndarray]] = {name: [] for name in tap_names(network.spec)}

    def keep(name: str, tensor: Tensor) -> None:
        if name in wanted:
            nhwc = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor
            kept[name].append(nhwc.contiguous().numpy())

    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        _forward(network, batch.permute(0, 3, 1, 2), keep)
        progress(start + len(batch))
    return {name: np.concatenate(parts) for name, parts in kept.items() if parts}
