"""Runs an IntegerNetwork exactly; every tensor can be tapped by name.

The semantics are those of bnnhw.network.integer, its operations are in bnnhw.golden.operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from bnnhw.errors import UserError
from bnnhw.golden import operations as parts
from bnnhw.network.integer import IntegerConvolution, IntegerNetwork, Structure, structure
from bnnhw.network.spec import Convolution, NetworkSpec

Keep = Callable[[str, Tensor], None]
ALWAYS = ("head.logits", "class")
UNSATURATED = ".unsaturated"  # the stream before it saturates: kept for golden.streams, no tap
BATCH = 100


def _numbered(name: str, count: int) -> list[str]:
    """Returns NAME, NAME1, NAME2, ..."""
    return [f"{name}{at or ''}" for at in range(count)]


def _convolution_taps(shape: Convolution, structure: Structure, features: int) -> list[str]:
    taps = _numbered("acc", len(structure.features))
    taps += ["shortcut.acc"] if structure.shortcut else []
    taps += ["hidden", "gate"] if structure.gate else []
    taps += ["residual"] if shape.shortcut else []
    return [f"{shape.name}.{tap}" for tap in (*taps, *_numbered("bits", features))]


def tap_names(spec: NetworkSpec) -> tuple[str, ...]:
    """Returns every tensor's name in order of computation. All maps are NHWC.

    input                uint8 (N, H, W, C)
    input.bits           uint8 (N, H, W, C * L), of a thermometer stem
    stem.acc, NAME.acc   int32; NAME.acc1, ... of further terms
    NAME.shortcut.acc    int32, of a 1x1 convolution
    NAME.hidden          int32 (N, 1, 1, hidden), of a gate
    NAME.gate            int32 (N, 1, 1, C), of a gate
    stem.residual        int32; NAME.residual where there is a shortcut
    stem.bits, NAME.bits uint8 of 0 and 1; NAME.bits1, ... of further thresholds
    head.logits          int64 (N, classes)
    class                int64 (N,)
    """
    features = spec.repair.features
    names = ["input"]
    names += ["input.bits"] if spec.repair.stem == "thermometer" else []
    names += ["stem.acc", "stem.residual", *_numbered("stem.bits", features)]
    for shape in spec.convolutions():
        names += _convolution_taps(shape, structure(shape, spec.repair), features)
    return (*names, *ALWAYS)


def _stem(network: IntegerNetwork, pixels: Tensor, keep: Keep) -> tuple[Tensor, list[Tensor]]:
    """Returns the residual stream and its bits."""
    stem = network.stem
    if stem.levels is None:
        acc = parts.stem(pixels, stem, network.spec.pad)
    else:
        bits = parts.pixel_bits(pixels, stem.levels)
        keep("input.bits", bits)
        if network.spec.pad:
            acc = parts.thermometer(pixels, stem, network.spec.pad)
        else:
            acc = parts.convolution(bits, stem.weights, 1, network.spec.repair.padding)
    keep("stem.acc", acc)
    formats, part = network.spec.formats, stem.requantiser
    v = parts.scaled(acc >> stem.pre_shift, part.scale, formats, part.exponent)
    v += parts.constant(part.bias, part.exponent)
    if stem.activation is not None:
        v = parts.activate(v, stem.activation, formats)
    keep(f"stem{UNSATURATED}", v >> formats.guard)
    y = parts.residual(v, formats)
    return y, parts.compare(y, part.thresholds)


def _shortcut(part: IntegerConvolution, stream: Tensor, spec: NetworkSpec, keep: Keep) -> Tensor:
    """Returns what is added to the convolution's output, wide."""
    shape = part.shape
    if part.shortcut is not None:
        acc = parts.shortcut_acc(stream, shape, part.shortcut)
        keep(f"{shape.name}.shortcut.acc", acc)
        half = acc >> part.shortcut.pre_shift
        exponent = part.shortcut.exponent
        wide = parts.scaled(half, part.shortcut.scale, spec.formats, exponent)
        return parts.sat16(wide + parts.constant(part.shortcut.bias, exponent))
    if structure(shape, spec.repair).averages:
        return parts.averaged(stream, shape, spec.formats)
    return parts.padded(stream, shape, spec.formats)


def _requantised(
    part: IntegerConvolution, accs: list[Tensor], stream: Tensor, spec: NetworkSpec, keep: Keep
) -> Tensor:
    """Returns residuals int32 (B, C, H, W), from the sums of the terms."""
    name, formats = part.shape.name, spec.formats
    added = _shortcut(part, stream, spec, keep) if part.shape.shortcut else None
    first = all(step is None for step in (part.spatial, part.before, part.gate))
    assert part.requantiser is not None
    exponent = part.requantiser.exponent
    u = parts.scaled(accs[0] >> 1, part.requantiser.scale, formats, exponent)  # acc is even: exact
    if added is not None and first:
        u += added
    for acc, term in zip(accs[1:], part.further, strict=True):
        u = parts.sat16(u) + parts.scaled(acc >> 1, term.scale, formats, exponent)
    if part.spatial is not None:
        u = parts.spatially_scaled(u, part.spatial)
    u += parts.constant(part.requantiser.bias, exponent)
    if part.border is not None:
        u += parts.border(part.border, part.shape)
    if part.before is not None:
        u = parts.activate(u, part.before, formats)
    if part.gate is not None:
        hidden, gates = parts.gate(u, part.gate, formats)
        keep(f"{name}.hidden", hidden)
        keep(f"{name}.gate", gates)
        u = parts.gated(u, gates, formats)
    if added is not None and not first:
        u += added
    if part.after is not None:
        u = parts.activate(u, part.after, formats)
    elif part.gate is not None:
        u += 1 << (formats.guard - 1)
    keep(f"{name}{UNSATURATED}", u >> formats.guard)
    return parts.residual(u, formats)


def _convolution(
    part: IntegerConvolution, bits: list[Tensor], stream: Tensor, spec: NetworkSpec, keep: Keep
) -> tuple[Tensor, list[Tensor]]:
    """Returns the residual stream and the bits after a convolution."""
    shape, padding = part.shape, (part.shape.repair or spec.repair).padding
    terms = [(part.weights, 0), *((term.weights, term.feature) for term in part.further)]
    accs = [
        parts.convolution(bits[feature], weights, shape.stride, padding)
        for weights, feature in terms
    ]
    for tap, acc in zip(_numbered(f"{shape.name}.acc", len(accs)), accs, strict=True):
        keep(tap, acc)
    if part.requantiser is None:
        assert part.threshold is not None
        return stream, parts.compare(accs[0], (part.threshold,))
    y = _requantised(part, accs, stream, spec, keep)
    return (y if shape.shortcut else stream), parts.compare(y, part.requantiser.thresholds)


def forward(network: IntegerNetwork, pixels: Tensor, keep: Keep) -> None:
    """Run one batch, uint8 (B, C, H, W). `keep` gets every tensor."""
    spec = network.spec

    def keep_maps(name: str, stream: Tensor | None, bits: list[Tensor]) -> None:
        if stream is not None:
            keep(f"{name}.residual", stream)
        for tap, tensor in zip(_numbered(f"{name}.bits", len(bits)), bits, strict=True):
            keep(tap, tensor)

    keep("input", pixels)
    stream, bits = _stem(network, pixels, keep)
    keep_maps("stem", stream, bits)
    for part in network.convolutions:
        stream, bits = _convolution(part, bits, stream, spec, keep)
        keep_maps(part.shape.name, stream if part.shape.shortcut else None, bits)
    logits = parts.head(stream, network.head)
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


def checked(network: IntegerNetwork, images: np.ndarray | Tensor) -> Tensor:
    """Returns uint8 images (N, H, W, C) of the network's size, or raises UserError."""
    pixels = torch.as_tensor(np.ascontiguousarray(images))
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != network.spec.input:
        raise UserError(
            f"images: needs uint8 (N, {', '.join(map(str, network.spec.input))}), has "
            f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
        )
    if not len(pixels):
        raise UserError("images: there are none; give at least one")
    return pixels


@torch.inference_mode()
def run(
    network: IntegerNetwork,
    images: np.ndarray | Tensor,
    taps: Iterable[str] | None = None,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """Run uint8 images (N, H, W, C). Returns the tensors that `taps` names ("all": every one).

    "head.logits" and "class" are always among them. `tap_names` has names, types and shapes.
    progress : is called after every batch with the number of images done.
    """
    wanted = _wanted(network.spec, taps)
    pixels = checked(network, images)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in tap_names(network.spec)}

    def keep(name: str, tensor: Tensor) -> None:
        if name in wanted:
            nhwc = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor
            kept[name].append(nhwc.contiguous().numpy())

    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        forward(network, batch.permute(0, 3, 1, 2), keep)
        progress(start + len(batch))
    return {name: np.concatenate(parts) for name, parts in kept.items() if parts}
