"""Runs a FoldedNetwork in real numbers: what its integers are to agree with.

The order of operation is that of bnnhw.network.folded, whose numbers these functions take as they
are. Maps are float64 (N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.folded import (
    Folded,
    FoldedActivation,
    FoldedGate,
    FoldedNetwork,
    FoldedShortcut,
    FoldedThermometer,
)
from bnnhw.network.integer import structure
from bnnhw.network.operations import saturation
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NetworkSpec

BATCH = 50
Map = np.ndarray[Any, np.dtype[np.float64]]
Keep = Callable[[str, Map], Map | None]


def run(
    network: FoldedNetwork, images: np.ndarray, *, rounded: bool = False,
    keep: Keep = lambda name, x: None,
) -> Map:  # fmt: skip
    """Returns logits (N, classes) of uint8 images (N, H, W, C).

    rounded : whether the stream is rounded and saturated to the spec's formats.
    keep : called with what continues after the stem and after each layer, for each batch. That is
        the stream where there is a shortcut. A map that it returns takes its place.
    """
    if images.dtype != np.uint8 or images.shape[1:] != network.spec.input:
        raise UserError(
            f"images: needs uint8 (N, {', '.join(map(str, network.spec.input))}), has "
            f"{images.dtype} {images.shape}"
        )
    parts = [
        _forward(network, images[start : start + BATCH], rounded, keep)
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


def _forward(network: FoldedNetwork, pixels: np.ndarray, rounded: bool, keep: Keep) -> Map:
    spec, head = network.spec, network.head

    def settled(name: str, x: Map, fraction: int) -> Map:
        return kept(name, _rounded(x, spec, fraction) if rounded else x)

    def kept(name: str, x: Map) -> Map:
        other = keep(name, x)
        return x if other is None else other

    stream = x = settled("stem", _stem(network, pixels), spec.formats.fraction(0))
    for shape, layer in zip(spec.convolutions(), network.layers, strict=True):
        x = _layer(layer, shape, spec, x, stream)
        if shape.shortcut:
            stream = x = settled(shape.name, x, shape.fraction)
        else:
            x = kept(shape.name, x)
    means = stream.mean((1, 2))
    logits: Map = head.unit * (means @ head.weights.T.astype(np.float64)) + head.bias
    return logits


def _rounded(x: Map, spec: NetworkSpec, fraction: int) -> Map:
    low, high = saturation(spec.formats.residual_width)
    steps: Map = np.floor(x * 2.0**fraction + 0.5).clip(low, high)
    return steps * 2.0**-fraction


def _signs(condition: np.ndarray) -> Map:
    return np.where(condition, 1.0, -1.0)


def _convolve(x: Map, weights: np.ndarray, stride: int) -> Map:
    """3x3 sums of a map that is padded already; weights (O, 3, 3, I)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]
    sums: Map = np.tensordot(windows, weights.astype(np.float64), ((4, 5, 3), (1, 2, 3)))
    return sums


def _padded(x: Map, value: np.ndarray | float) -> Map:
    batch, height, width, channels = x.shape
    result = np.empty((batch, height + 2, width + 2, channels))
    result[:] = value
    result[:, 1:-1, 1:-1] = x
    return result


def _stem(network: FoldedNetwork, pixels: np.ndarray) -> Map:
    stem, spec = network.stem, network.spec
    around = _padded(pixels.astype(np.float64), np.array(spec.pad or 128, np.float64))
    if isinstance(stem, FoldedThermometer):
        x = _signs(around[..., None] >= stem.levels).reshape(*around.shape[:3], -1)
        if not spec.pad:
            x = _padded(x[:, 1:-1, 1:-1], _outside(spec.repair))
        y = _convolve(x, stem.term.weights, 1) * stem.term.gain + stem.offset
    else:
        y = _convolve(around - 128, stem.weights, 1) * stem.gain + stem.offset
    return _activated(y, stem.activation)


def _outside(repair: Repair) -> float:
    return -1.0 if repair.padding == "minus-one" else 0.0


def _activated(x: Map, part: FoldedActivation | None) -> Map:
    if part is None:
        return x
    slope = np.where(x >= part.shift_in, part.positive, part.negative)
    y: Map = slope * (x - part.shift_in) + part.shift_out
    return y


def _layer(layer: Folded, shape: Convolution, spec: NetworkSpec, x: Map, stream: Map) -> Map:
    y: Map = np.zeros(1)
    for term in layer.terms:
        outside = _outside(shape.repair or spec.repair)
        bits = _padded(_signs(x >= layer.thresholds[term.feature]), outside)
        y = y + term.gain * _convolve(bits, term.weights, shape.stride)
    if layer.spatial is not None:
        y = y * layer.spatial[..., None]
    y = y + layer.offset
    if layer.border is not None:
        y = y + _border(layer.border, shape)
    after = structure(shape, spec.repair).after
    y = y if after else _activated(y, layer.activation)
    if layer.gate is not None:
        y = y * _gate(layer.gate, y)
    if shape.shortcut:
        y = y + _shortcut(layer.shortcut, shape, spec, stream)
    return _activated(y, layer.activation) if after else y


def _border(border: np.ndarray, shape: Convolution) -> Map:
    def cases(size: int) -> list[int]:
        places = range(0, size, shape.stride)
        return [0 if at == 0 else 2 if at + 1 >= size else 1 for at in places]

    result: Map = border[cases(shape.height)][:, cases(shape.width)]
    return result


def _gate(part: FoldedGate, y: Map) -> Map:
    hidden = np.maximum(0, y.mean((1, 2)) @ part.w1.T + part.b1)
    gates: Map = np.clip((hidden @ part.w2.T + part.b2) / 6 + 0.5, 0, 1)[:, None, None]
    return gates


def _shortcut(
    part: FoldedShortcut | None, shape: Convolution, spec: NetworkSpec, stream: Map
) -> Map:
    step, wide = shape.shortcut_stride, shape.out_channels
    kept = stream[:, ::step, ::step]
    if part is not None:
        kept = _signs(kept >= 0) if part.binary else kept
        made: Map = part.gain * (kept @ part.weights.T.astype(np.float64)) + part.offset
        return made
    if structure(shape, spec.repair).averages:
        batch, height, width, _ = stream.shape
        even = np.pad(stream, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
        split = even.reshape(batch, shape.out_height, 2, shape.out_width, 2, -1)
        means: Map = split.mean((2, 4))[..., np.arange(wide) % shape.shortcut_channels]
        return means
    result = np.zeros((len(stream), shape.out_height, shape.out_width, wide))
    front = shape.shortcut_offset
    result[..., front : front + shape.shortcut_channels] = kept
    return result
