"""The trainable binary ResNet of a NetworkSpec."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.nn.binarizers import binary_weight, feature_binarizer
from bnnhw.nn.quantisers import PixelScaling, quantise_residual, quantise_weight
from bnnhw.spec import Convolution, NetworkSpec

LATENT_SIGMA = 0.05
INITIAL_GAIN = 0.5  # of a convolution's batch norm: keeps early streams where gradients pass


class Stem(nn.Module):
    """8-bit 3x3 convolution, zero padded, and batch norm.

    x (B, C, H, W) -> (B, widths[0], H, W).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        out, channels = spec.widths[0], spec.input[2]
        self.weight = nn.Parameter(torch.empty(out, channels, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.conv2d(x, quantise_weight(self.weight, per_channel=True), padding=1))


class BinaryConvolution(nn.Module):
    """Binarizer, W1A1 3x3 convolution and batch norm.

    x (B, in_channels, height, width) -> (B, out_channels, out_height, out_width).
    """

    def __init__(self, shape: Convolution, spec: NetworkSpec) -> None:
        super().__init__()
        self.shape = shape
        self.minus_one = spec.repair.padding == "minus-one"
        self.binarizer = feature_binarizer(spec, shape.in_channels)
        self.weight = nn.Parameter(torch.empty(shape.out_channels, shape.in_channels, 3, 3))
        nn.init.normal_(self.weight, std=LATENT_SIGMA)
        self.norm = nn.BatchNorm2d(shape.out_channels)
        nn.init.constant_(self.norm.weight, INITIAL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        bits, weight = self.binarizer(x), binary_weight(self.weight)
        if self.minus_one:
            bits = F.pad(bits, (1, 1, 1, 1), value=-1.0)
        padding = 0 if self.minus_one else 1
        return self.norm(F.conv2d(bits, weight, stride=self.shape.stride, padding=padding))


def pad_shortcut(stream: Tensor, shape: Convolution) -> Tensor:
    """Subsampled stream with zero channels around it, as `Convolution` defines it."""
    step, front = shape.shortcut_stride, shape.shortcut_offset
    if step > 1:
        stream = stream[:, :, ::step, ::step]
    back = shape.out_channels - shape.shortcut_channels - front
    return F.pad(stream, (0, 0, 0, 0, front, back)) if front or back else stream


class Head(nn.Module):
    """Global average pooling and an 8-bit linear layer: (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        channels = spec.widths[-1]
        self.weight = nn.Parameter(torch.empty(spec.classes, channels))
        nn.init.normal_(self.weight, std=channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(spec.classes))

    def forward(self, stream: Tensor) -> Tensor:
        pooled = stream.mean((2, 3), dtype=torch.float32)
        with torch.autocast(stream.device.type, enabled=False):
            return F.linear(pooled, quantise_weight(self.weight, per_channel=False), self.bias)


class BinaryResNet(nn.Module):
    """pixels uint8 (B, C, H, W) -> logits float32 (B, classes).

    The residual stream is rounded and saturated as on the device; everything else is real.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.pixels = PixelScaling()
        self.stem = Stem(spec)
        self.convolutions = nn.ModuleList(
            BinaryConvolution(shape, spec) for shape in spec.convolutions()
        )
        self.head = Head(spec)

    def forward(self, pixels: Tensor) -> Tensor:
        formats = self.spec.formats
        stream = x = quantise_residual(self.stem(self.pixels(pixels)), formats)
        for layer in self.layers():
            x = layer(x)
            if layer.shape.shortcut:
                x = quantise_residual(x + pad_shortcut(stream, layer.shape), formats)
                stream = x
        return self.head(stream)

    def layers(self) -> tuple[BinaryConvolution, ...]:
        """The binary convolutions in order of execution."""
        return tuple(part for part in self.convolutions if isinstance(part, BinaryConvolution))

    def latent_weights(self) -> list[nn.Parameter]:
        """The real weights behind the binary ones."""
        return [layer.weight for layer in self.layers()]
