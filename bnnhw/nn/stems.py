"""The first layer: pixels to the residual stream, before it is rounded."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.network.spec import NetworkSpec, thermometer_levels
from bnnhw.nn.binarizers import WeightBinarizer
from bnnhw.nn.folded import (
    FoldedStem,
    FoldedThermometer,
    Term,
    bits,
    finite,
    fold_norm,
)
from bnnhw.nn.quantisers import PIXEL_UNITS, int8_scale, quantise_weight
from bnnhw.nn.weights import latent

LEVELS = 32  # of the thermometer, per colour


class Stem(nn.Module):
    """8-bit 3x3 convolution, zero padded, and batch norm.

    x (B, C, H, W), as PixelScaling gives it -> (B, widths[0], H, W).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        out, channels = spec.widths[0], spec.input[2]
        self.weight = nn.Parameter(torch.empty(out, channels, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        sums = F.conv2d(x, quantise_weight(self.weight, per_channel=True), padding=1)
        normed: Tensor = self.norm(sums)
        return normed

    @torch.no_grad()
    def folded(self) -> FoldedStem:
        """This layer in evaluation mode, in float64."""
        finite("stem.weight", self.weight)
        unit = int8_scale(self.weight, per_channel=True)
        scale = unit.cpu().double().flatten().numpy() / PIXEL_UNITS
        affine = fold_norm("stem.norm", self.norm, scale)
        return FoldedStem(bits(torch.round(self.weight / unit)), affine.slope, affine.offset)


class ThermometerStem(nn.Module):
    """Bits of each pixel and colour, one per level, a binary 3x3 convolution and batch norm.

    x (B, C, H, W), as PixelScaling gives it -> (B, widths[0], H, W). FracBNN, 2012.12206.
    """

    levels: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.minus_one = spec.repair.padding == "minus-one"
        out, channels = spec.widths[0], spec.input[2] * LEVELS
        levels = (torch.tensor(thermometer_levels(LEVELS)) - 128) / PIXEL_UNITS
        self.register_buffer("levels", levels, persistent=False)
        self.weight_binarizer = WeightBinarizer(spec.repair)
        self.weight = latent(spec.repair, out, channels, 3, 3)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        above = x[:, :, None] >= self.levels[:, None, None]
        features = above.flatten(1, 2).to(x.dtype) * 2 - 1
        if self.minus_one:
            features = F.pad(features, (1, 1, 1, 1), value=-1.0)
        weight = self.weight_binarizer(self.weight)
        sums = F.conv2d(features, weight, padding=0 if self.minus_one else 1)
        normed: Tensor = self.norm(sums)
        return normed

    @torch.no_grad()
    def folded(self) -> FoldedThermometer:
        """This layer in evaluation mode, in float64."""
        finite("stem.weight", self.weight)
        affine = fold_norm("stem.norm", self.norm)
        term = Term(bits(self.weight_binarizer(self.weight)), affine.slope, 0)
        return FoldedThermometer(np.array(thermometer_levels(LEVELS)), term, affine.offset)


def stem(spec: NetworkSpec) -> Stem | ThermometerStem:
    """The stem that spec.repair names."""
    return ThermometerStem(spec) if spec.repair.stem == "thermometer" else Stem(spec)
