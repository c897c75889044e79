"""The first layer: pixels to the residual stream, before it is rounded."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.network.folded import FoldedStem, FoldedThermometer, Term
from bnnhw.network.spec import NetworkSpec, thermometer_levels
from bnnhw.nn.activations import Activation
from bnnhw.nn.binarizers import WeightBinarizer
from bnnhw.nn.folded import bits, finite, fold_norm
from bnnhw.nn.kernels import binary_conv
from bnnhw.nn.quantisers import PIXEL_UNITS, int8_scale, quantise_weight
from bnnhw.nn.weights import latent

LEVELS = 32  # of the thermometer, per colour


class Border(nn.Module):
    """Pixels as PixelScaling gives them (B, C, H, W) -> with the spec's pad around them."""

    around: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        around = ((torch.tensor(spec.pad) - 128) / PIXEL_UNITS)[:, None, None]
        self.register_buffer("around", around, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.zeros_like(x[:1, :1])
        outside = F.pad(inside, (1, 1, 1, 1), value=1.0)
        return F.pad(x, (1, 1, 1, 1)) + outside * self.around.to(x.dtype)


def activation(spec: NetworkSpec) -> Activation | None:
    """Returns what follows the stem's batch norm."""
    kind = spec.stem_activation
    return None if kind == "none" else Activation(kind, spec.stem_channels)


class Stem(nn.Module):
    """8-bit 3x3 convolution, padded with the spec's pad, batch norm and the spec's activation.

    x (B, C, H, W), as PixelScaling gives it -> (B, widths[0], H, W).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        out, channels = spec.stem_channels, spec.input[2]
        self.pad = Border(spec) if spec.pad else None
        self.activation = activation(spec)
        self.weight = nn.Parameter(torch.empty(out, channels, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        weight = quantise_weight(self.weight, per_channel=True)
        sums = F.conv2d(x, weight, padding=1) if self.pad is None else F.conv2d(self.pad(x), weight)
        normed: Tensor = self.norm(sums)
        return normed if self.activation is None else self.activation(normed)

    @torch.no_grad()
    def folded(self) -> FoldedStem:
        """Returns this layer in evaluation mode, in float64."""
        finite("stem.weight", self.weight)
        unit = int8_scale(self.weight, per_channel=True)
        scale = unit.cpu().double().flatten().numpy() / PIXEL_UNITS
        affine = fold_norm("stem.norm", self.norm, scale)
        act = None if self.activation is None else self.activation.folded()
        return FoldedStem(bits(torch.round(self.weight / unit)), affine.slope, affine.offset, act)


class ThermometerStem(nn.Module):
    """Bits of each pixel and colour, one per level, a binary 3x3 convolution and batch norm.

    x (B, C, H, W), as PixelScaling gives it -> (B, widths[0], H, W). FracBNN, 2012.12206.
    """

    levels: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.minus_one = spec.repair.padding == "minus-one"
        self.reached = spec.levels or tuple(thermometer_levels(LEVELS))
        out, channels = spec.stem_channels, spec.input[2] * len(self.reached)
        self.pad = Border(spec) if spec.pad else None
        self.activation = activation(spec)
        levels = (torch.tensor(self.reached) - 128) / PIXEL_UNITS
        self.register_buffer("levels", levels, persistent=False)
        self.weight_binarizer = WeightBinarizer(spec.repair)
        self.weight = latent(spec.repair, out, channels, 3, 3)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pad is None else self.pad(x)
        weight = self.weight_binarizer(self.weight)
        normed: Tensor = self.norm(self._convolved(self._features(x), weight))
        return normed if self.activation is None else self.activation(normed)

    def _features(self, x: Tensor) -> Tensor:
        """Returns +-1 (B, C * L, H, W), channels last; bfloat16 where the training is."""
        above = x.permute(0, 2, 3, 1).unsqueeze(-1) >= self.levels
        half = torch.is_autocast_enabled(x.device.type)
        features = above.flatten(3).to(torch.bfloat16 if half else x.dtype)
        return features.mul_(2).sub_(1).permute(0, 3, 1, 2)

    def _convolved(self, features: Tensor, weight: Tensor) -> Tensor:
        if self.pad is not None:
            return F.conv2d(features, weight)
        if self.minus_one:
            return F.conv2d(F.pad(features, (1, 1, 1, 1), value=-1.0), weight)
        if not self.weight_binarizer.real and binary_conv.takes(features, len(weight), 1):
            return binary_conv.convolve(features, weight)
        return F.conv2d(features, weight, padding=1)

    @torch.no_grad()
    def folded(self) -> FoldedThermometer:
        """Returns this layer in evaluation mode, in float64."""
        finite("stem.weight", self.weight)
        affine = fold_norm("stem.norm", self.norm)
        term = Term(bits(self.weight_binarizer(self.weight)), affine.slope, 0)
        act = None if self.activation is None else self.activation.folded()
        return FoldedThermometer(np.array(self.reached), term, affine.offset, act)


def stem(spec: NetworkSpec) -> Stem | ThermometerStem:
    """Returns the stem that spec.repair names."""
    return ThermometerStem(spec) if spec.repair.stem == "thermometer" else Stem(spec)
