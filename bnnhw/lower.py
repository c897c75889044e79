"""Trained model -> IntegerNetwork: folds batch norm into scales, biases and thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from bnnhw.checkpoint import Checkpoint
from bnnhw.errors import UserError
from bnnhw.integer import (
    IntegerConvolution,
    IntegerHead,
    IntegerNetwork,
    IntegerStem,
    Requantiser,
    saturation,
)
from bnnhw.nn import BinaryResNet
from bnnhw.nn.features import FeatureBinarizer
from bnnhw.nn.quantisers import INT8_MAX, PIXEL_UNITS, int8_scale
from bnnhw.nn.resnet import BinaryConvolution
from bnnhw.spec import Convolution, NetworkSpec, NumberFormats

INT16_MAX = saturation(16)[1]
FINEST_HALF = 1 / 8  # residual steps


@dataclass(frozen=True)
class Affine:
    """A folded batch norm: slope * acc + offset, float64 (C,)."""

    slope: np.ndarray
    offset: np.ndarray


def _finite(where: str, values: torch.Tensor) -> np.ndarray:
    array = values.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise UserError(f"{where}[{at}]={array.flat[at]}: must be finite; train the model anew")
    return array


def fold_norm(name: str, norm: nn.BatchNorm2d, unit: np.ndarray | float = 1.0) -> Affine:
    """Batch norm of acc * unit, as a function of the integer acc; `unit` is a number or (C,)."""
    gamma, beta, mean, var = (
        _finite(f"{name}.norm.{part}", getattr(norm, part))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    if (var < 0).any():
        at = int(np.argmax(var < 0))
        raise UserError(f"{name}.norm.running_var[{at}]={var[at]}: must not be negative")
    gain = gamma / np.sqrt(var + norm.eps)
    return Affine(gain * unit, beta - gain * mean)


def residual_threshold(name: str, binarizer: nn.Module | None, channels: int,
                       formats: NumberFormats) -> np.ndarray:  # fmt: skip
    """The least residual, in steps, that the binarizer makes a 1: int32 (channels,)."""
    if not isinstance(binarizer, FeatureBinarizer) or not binarizer.learned:
        return np.zeros(channels, np.int32)
    low, high = saturation(formats.residual_width)
    threshold = _finite(f"{name}.binarizer.threshold", binarizer.threshold)
    steps = np.ceil(threshold * 2.0**formats.residual_fraction)
    return np.clip(steps, low, high + 1).astype(np.int32)


def bit_threshold(affine: Affine, level: np.ndarray, fan_in: int) -> np.ndarray:
    """The least acc in [-fan_in, fan_in] with slope * acc + offset >= level; else fan_in + 1.

    All float64 (C,), no slope negative. By bisection: rounding keeps the comparison monotone, so
    the answer is that of trying every acc.
    """
    low = np.full(level.shape, -fan_in, np.int64)
    high = np.full(level.shape, fan_in + 1, np.int64)
    while (low < high).any():
        middle = (low + high) >> 1
        holds = affine.slope * middle + affine.offset >= level
        high = np.where(holds, middle, high)
        low = np.where(holds | (low >= high), low, middle + 1)
    return high.astype(np.int32)


def requantiser(name: str, affine: Affine, spec: NetworkSpec, threshold: np.ndarray,
                lost: float = 0.0) -> Requantiser:  # fmt: skip
    """Integers for y = slope * half + offset, both in real units; may raise _Overflow.

    lost : what flooring takes from half on average; the bias makes up for it. The floor of the
    scaled product costs nothing: floor(floor(t) + n) = floor(t + n) for a whole bias n.
    """
    formats = spec.formats
    step, guard = 2.0**formats.residual_fraction, formats.guard
    slope = affine.slope * step
    scale = np.round(slope * 2.0**formats.scale_fraction)
    if np.abs(scale).max() > INT16_MAX:
        at = int(np.argmax(np.abs(slope)))
        raise _Overflow(
            f"{name}.norm.weight[{at}]: one step of its output is {abs(slope[at]):.6g} residual "
            f"steps, must stay below {INT16_MAX / 2**guard:.6g}; train the model anew"
        )
    offset = (affine.offset * step + slope * lost) * 2.0**guard
    bias = np.round(offset + 2.0 ** (guard - 1))
    if np.abs(bias).max() > INT16_MAX:
        at = int(np.argmax(np.abs(bias)))
        raise _Overflow(
            f"{name}.norm.bias[{at}]: folds to {affine.offset[at]:.6g}, must stay below "
            f"{INT16_MAX / step / 2**guard:.6g}; train the model anew"
        )
    return Requantiser(scale.astype(np.int32), bias.astype(np.int32), threshold)


class _Overflow(UserError):
    """A scale or bias needs more than 16 bits; with a smaller fraction it may fit."""


def _pre_shift(affine: Affine, spec: NetworkSpec) -> int:
    """Bits the stem drops: enough for half to fit, and while a half stays a small part of a step.

    Dropping bits that do not matter makes the scale greater, and so its rounding finer.
    """
    greatest, shift = 9 * spec.input[2] * 128 * INT8_MAX, 0
    step = np.abs(affine.slope).max() * 2.0**spec.formats.residual_fraction
    while greatest >> shift >> 15 or (shift < 16 and step * 2 ** (shift + 1) <= FINEST_HALF):
        shift += 1
    return shift


def _stem(model: BinaryResNet, spec: NetworkSpec) -> IntegerStem:
    weight = model.stem.weight.detach()
    _finite("stem.weight", weight)
    unit = int8_scale(weight, per_channel=True)
    weights = torch.round(weight / unit).permute(0, 2, 3, 1).to(torch.int8).numpy()
    affine = fold_norm("stem", model.stem.norm, unit.double().flatten().numpy() / PIXEL_UNITS)
    after = model.layers()[0].binarizer
    threshold = residual_threshold(spec.convolutions()[0].name, after, spec.widths[0], spec.formats)
    shift = _pre_shift(affine, spec)
    halves = Affine(affine.slope * 2**shift, affine.offset)
    lost = (1 - 2.0**-shift) / 2
    return IntegerStem(
        np.ascontiguousarray(weights), shift, requantiser("stem", halves, spec, threshold, lost)
    )


def _convolution(layer: BinaryConvolution, after: BinaryConvolution | None,
                 spec: NetworkSpec) -> IntegerConvolution:  # fmt: skip
    shape: Convolution = layer.shape
    name = shape.name
    latent = _finite(f"{name}.weight", layer.weight)
    weights = np.where(latent >= 0, 1, -1).astype(np.int8).transpose(0, 2, 3, 1)
    affine = fold_norm(name, layer.norm)
    binarizer = None if after is None else after.binarizer
    if shape.shortcut:
        threshold = residual_threshold(
            name if after is None else after.shape.name,
            binarizer, shape.out_channels, spec.formats,
        )  # fmt: skip
        halves = Affine(affine.slope * 2, affine.offset)
        part = requantiser(name, halves, spec, threshold)
        return IntegerConvolution(shape, np.ascontiguousarray(weights), part, None)
    level = np.zeros(shape.out_channels)
    if isinstance(binarizer, FeatureBinarizer) and binarizer.learned and after is not None:
        level = _finite(f"{after.shape.name}.binarizer.threshold", binarizer.threshold)
    signs = np.where(affine.slope < 0, -1, 1).astype(np.int8)
    weights = np.ascontiguousarray(weights * signs[:, None, None, None])
    rising = Affine(np.abs(affine.slope), affine.offset)
    return IntegerConvolution(
        shape, weights, None, bit_threshold(rising, level, 9 * shape.in_channels)
    )


def _head(model: BinaryResNet, spec: NetworkSpec) -> IntegerHead:
    weight = model.head.weight.detach()
    _finite("head.weight", weight)
    unit = int8_scale(weight, per_channel=False)
    last = spec.convolutions()[-1]
    pixels = last.out_height * last.out_width
    logit = float(unit) / (pixels * 2.0**spec.formats.residual_fraction)
    bias = _finite("head.bias", model.head.bias) / logit
    shift = 0
    while np.abs(np.round(bias / 2**shift)).max() > INT8_MAX:
        shift += 1
        if shift > 14:
            at = int(np.argmax(np.abs(bias)))
            raise UserError(
                f"head.bias[{at}]={bias[at] * logit:.6g}: must stay below "
                f"{(INT8_MAX << 14) * logit:.6g} beside these weights; train the model anew"
            )
    weights = torch.round(weight / unit).to(torch.int8).numpy()
    return IntegerHead(weights, np.round(bias / 2**shift).astype(np.int8), shift)


def _lower(model: BinaryResNet, spec: NetworkSpec) -> IntegerNetwork:
    layers = model.layers()
    following = (*layers[1:], None)
    convolutions = tuple(
        _convolution(layer, after, spec) for layer, after in zip(layers, following, strict=True)
    )
    return IntegerNetwork(spec, _stem(model, spec), convolutions, _head(model, spec))


def _formats(asked: NumberFormats, width: int | None) -> Iterator[NumberFormats]:
    """Formats to try in turn, the finest first."""
    width = asked.residual_width if width is None else width
    extra = width - asked.residual_width
    for more in range(extra, min(extra, 0) - 1, -1):
        for fraction in range(asked.scale_fraction, asked.guard - 1, -1):
            yield replace(
                asked,
                residual_width=width,
                residual_fraction=max(0, asked.residual_fraction + more),
                scale_fraction=fraction,
            )


def lower(
    source: BinaryResNet | Checkpoint, *, residual_width: int | None = None
) -> IntegerNetwork:
    """The integers of a trained (or untrained) network.

    residual_width : bits of the residual stream instead of those it was trained with. They come
    or go behind the point, so the stream saturates where it did in training.
    Where a scale or bias needs more than 16 bits, the whole network gets the next smaller
    formats.scale_fraction, then (if wider than trained) formats.residual_fraction.
    UserError names the layer and value that no format can hold.
    """
    model = source.model() if isinstance(source, Checkpoint) else source
    for formats in _formats(model.spec.formats, residual_width):
        try:
            return _lower(model, replace(model.spec, formats=formats))
        except _Overflow as overflow:
            fault = overflow
    raise fault
