"""The trainable binary ResNet of a NetworkSpec."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.network.folded import FoldedHead, FoldedNetwork
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.binarizers import SurrogateSign, WeightBinarizer
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.folded import finite
from bnnhw.nn.quantisers import PixelScaling, int8_scale, quantise_residual, quantise_weight
from bnnhw.nn.shortcuts import BinaryShortcut
from bnnhw.nn.stems import ThermometerStem, stem


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

    @torch.no_grad()
    def folded(self) -> FoldedHead:
        """Returns this layer, in float64."""
        weight = self.weight.detach()
        finite("head.weight", weight)
        unit = int8_scale(weight, per_channel=False)
        weights = torch.round(weight / unit).to(torch.int8).cpu().numpy()
        return FoldedHead(weights, float(unit), finite("head.bias", self.bias))


class BinaryResNet(nn.Module):
    """pixels uint8 (B, C, H, W) -> logits float32 (B, classes).

    The residual stream is rounded and saturated as on the device. Everything else is real.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.pixels = PixelScaling()
        self.stem = stem(spec)
        self.convolutions = nn.ModuleList(
            BinaryConvolution(shape, spec) for shape in spec.convolutions()
        )
        self.head = Head(spec)
        kinds = (SurrogateSign, WeightBinarizer)
        self._annealed = [part for part in self.modules() if isinstance(part, kinds)]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.stages(pixels)[0]

    def stages(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the logits, and the residual stream after each stage."""
        formats = self.spec.formats
        first = formats.at(formats.fraction(0))
        stream = x = quantise_residual(self.stem(self.pixels(pixels)), first)
        after = []
        layers = self.layers()
        for layer, following in zip(layers, (*layers[1:], None), strict=True):
            if layer.shape.shortcut:
                stream = x = layer(x, stream, formats.at(layer.shape.fraction))
            else:
                x = layer(x)
            if following is None or following.shape.stage > layer.shape.stage:
                after.append(stream)
        return self.head(stream), after

    def folded(self) -> FoldedNetwork:
        """Returns this network in evaluation mode, in float64, or raises UserError."""
        layers = tuple(layer.folded() for layer in self.layers())
        return FoldedNetwork(self.spec, self.stem.folded(), layers, self.head.folded())

    def anneal(self, done: float) -> None:
        """Tell every part that `done` of the schedule, in [0, 1], is over."""
        for part in self._annealed:
            part.anneal(done)

    @property
    def real(self) -> bool:
        """Whether weights are real for now, in training."""
        return any(part.real for part in self._annealed if isinstance(part, WeightBinarizer))

    def layers(self) -> tuple[BinaryConvolution, ...]:
        """Returns the binary convolutions in order of execution."""
        return tuple(part for part in self.convolutions if isinstance(part, BinaryConvolution))

    def latent_weights(self) -> list[nn.Parameter]:
        """Returns the real weights behind the binary ones, of stem and shortcuts too."""
        binary = (BinaryConvolution, BinaryShortcut, ThermometerStem)
        return [part.weight for part in self.modules() if isinstance(part, binary)]
