"""Random networks that exercise every tensor, for tests of everything after training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.activations import Activation
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.gates import Gate
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.nn.shortcuts import BinaryShortcut, ByteShortcut

STREAM_SIGMA = 2.0


class _Dice:
    """Draws random values for existing tensors, in place."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, tensor: Tensor, sigma: float = 1.0) -> None:
        tensor.copy_(sigma * torch.randn(tensor.shape, generator=self.generator))

    def uniform(self, tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=self.generator))

    def factors(self, tensor: Tensor, size: float = 1.0) -> None:
        """Draw factors of about this size, some of them negated."""
        generator = self.generator
        signs = torch.where(torch.rand(tensor.shape, generator=generator) < 0.3, -1.0, 1.0)
        tensor.copy_(signs * (torch.rand(tensor.shape, generator=generator) + 0.5) * size)

    def norm(self, norm: nn.BatchNorm2d, sigma: float, gain: float) -> None:
        """Draw statistics of inputs of about this sigma. Outputs are about `gain`, some negated."""
        self.factors(norm.weight, gain)
        self.normal(norm.bias, 0.3 * gain)
        assert norm.running_mean is not None and norm.running_var is not None
        self.normal(norm.running_mean, 0.3 * sigma)
        self.uniform(norm.running_var, 0.5, 1.5)
        norm.running_var.mul_(sigma).square_()


def _randomise_binarizer(layer: BinaryConvolution, dice: _Dice) -> None:
    binarizer = layer.binarizer
    if binarizer.learned:
        start = binarizer.threshold.clone()
        dice.normal(binarizer.threshold, 0.3)
        binarizer.threshold.add_(start)
    if binarizer.adaptive:
        dice.normal(binarizer.centre, 0.3)
        dice.factors(binarizer.distance)
        layer.weight.add_(0.3 * torch.randn(len(layer.weight), 1, 1, 1, generator=dice.generator))


def _randomise_factors(layer: BinaryConvolution, dice: _Dice) -> None:
    for name, factors in layer.named_parameters(recurse=False):
        if name == "shift":
            dice.normal(factors, 0.3)
        elif name in ("spatial_rows", "spatial_columns"):
            dice.uniform(factors, 0.5, 1.5)
        elif name != "weight":
            dice.factors(factors, float(factors.mean()))


def _randomise_activation(activation: Activation, dice: _Dice) -> None:
    """Draw slopes of either sign on both sides."""
    dice.uniform(activation.negative, -0.3, 0.6)
    for name, shift in activation.named_parameters():
        if name == "positive":
            dice.uniform(shift, -0.2, 1.5)
        elif name != "negative":
            dice.normal(shift, 0.3)


def _randomise_gate(gate: Gate, dice: _Dice) -> None:
    """Draw gates wide open and shut, and hidden numbers that are seldom zero."""
    dice.normal(gate.reduce.weight, gate.reduce.in_features**-0.5)
    dice.uniform(gate.reduce.bias, 0.5, 1.5)
    dice.normal(gate.expand.weight)
    dice.normal(gate.expand.bias, 2.0)


def _randomise_shortcut(part: nn.Module | None, dice: _Dice) -> None:
    if isinstance(part, BinaryShortcut):
        dice.norm(part.norm, part.weight.shape[1] ** 0.5, STREAM_SIGMA)
    elif isinstance(part, ByteShortcut):
        dice.normal(part.weight, part.weight.shape[1] ** -0.5)
        dice.norm(part.norm, STREAM_SIGMA, STREAM_SIGMA)


def _randomise(layer: BinaryConvolution, gain: float, dice: _Dice) -> None:
    _randomise_factors(layer, dice)
    if layer.norm is not None:
        sigma = layer.factored_weights().square().sum((1, 2, 3)).mean().sqrt()
        dice.norm(layer.norm, float(sigma), gain)
    if layer.norm_before is not None:
        dice.norm(layer.norm_before, STREAM_SIGMA, 1.0)
    _randomise_binarizer(layer, dice)
    if layer.activation is not None:
        _randomise_activation(layer.activation, dice)
    if layer.gate is not None:
        _randomise_gate(layer.gate, dice)
    _randomise_shortcut(layer.shortcut, dice)


def untrained(spec: NetworkSpec, seed: int = 0) -> BinaryResNet:
    """Returns a network with random parameters and batch norm statistics, in evaluation mode.

    The statistics fit uniformly random images. So the residual stream spreads over its whole range:
    it does not vanish, and only a few values saturate.
    """
    dice = _Dice(seed)
    model = BinaryResNet(spec).eval()
    adds = sum(shape.shortcut for shape in spec.convolutions())
    with torch.no_grad():
        for parameter in dict.fromkeys(
            (model.stem.weight, *model.latent_weights(), model.head.weight)
        ):
            dice.normal(parameter)
        dice.normal(model.head.bias)
        fan_in = model.stem.weight[0].numel()
        dice.norm(model.stem.norm, 1.15 * fan_in**0.5, 1.0)
        if model.stem.activation is not None:
            _randomise_activation(model.stem.activation, dice)
        for layer in model.layers():
            _randomise(layer, STREAM_SIGMA * (1 + adds) ** -0.5, dice)
    return model
