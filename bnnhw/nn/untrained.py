"""Random networks that exercise every tensor, for tests of everything after training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnhw.nn.binarizers import RSign
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.spec import NetworkSpec

STREAM_SIGMA = 2.0


def _randomise_norm(
    norm: nn.BatchNorm2d, sigma: float, gain: float, generator: torch.Generator
) -> None:
    """Statistics of inputs of about this sigma; outputs of about `gain`, some of them negated."""

    def normal() -> Tensor:
        return torch.randn(norm.num_features, generator=generator)

    def spread() -> Tensor:
        return torch.rand(norm.num_features, generator=generator) + 0.5

    signs = torch.where(torch.rand(norm.num_features, generator=generator) < 0.3, -1.0, 1.0)
    with torch.no_grad():
        norm.weight.copy_(signs * spread() * gain)
        norm.bias.copy_(normal() * 0.3 * gain)
        norm.running_mean.copy_(normal() * 0.3 * sigma)
        norm.running_var.copy_((sigma * spread()) ** 2)


def untrained(spec: NetworkSpec, seed: int = 0) -> BinaryResNet:
    """A network with random weights, thresholds and batch norm statistics, in evaluation mode.

    The statistics fit uniformly random images, so the residual stream neither vanishes nor
    saturates throughout: it spreads over its whole range, and a few values saturate.
    """
    generator = torch.Generator().manual_seed(seed)
    model = BinaryResNet(spec)
    adds = sum(shape.shortcut for shape in spec.convolutions())
    gain = STREAM_SIGMA * (1 + adds) ** -0.5
    with torch.no_grad():
        for parameter in (model.stem.weight, *model.latent_weights(), model.head.weight):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.head.bias.copy_(torch.randn(spec.classes, generator=generator))
        fan_in = 9 * spec.input[2]
        _randomise_norm(model.stem.norm, 1.15 * fan_in**0.5, 1.0, generator)
        for convolution in model.layers():
            sigma = (9 * convolution.shape.in_channels) ** 0.5
            _randomise_norm(convolution.norm, sigma, gain, generator)
            if isinstance(convolution.binarizer, RSign):
                threshold = convolution.binarizer.threshold
                threshold.copy_(0.3 * torch.randn(threshold.shape, generator=generator))
    return model.eval()
