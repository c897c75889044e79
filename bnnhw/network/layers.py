"""The layers of a network: each binary convolution with its shape and methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnnhw.errors import UserError
from bnnhw.network.repair import Repair

EVERYWHERE = (  # methods that are of a whole network: its files, its stem or its training
    "ensemble", "double_residual", "stem", "teacher_student", "regularization", "two_stage",
    "optimizer",
)  # fmt: skip


def whole(name: str, value: Any, low: int, high: int) -> None:
    """Raises UserError unless the value is a whole number in [low, high]."""
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{name}={value!r}: must be a whole number from {low} to {high}")


@dataclass(frozen=True)
class Layer:
    """One binary 3x3 convolution.

    in_channels, out_channels : even; the former are the latter of the layer before.
    stride : 1 or 2. shortcut : whether the residual stream is added to its output.
    stage : from 0, never falling: layers of a stage have their stream's number format in common.
    repair : its methods, where they are not the network's.
    """

    name: str
    in_channels: int
    out_channels: int
    stride: int = 1
    shortcut: bool = True
    stage: int = 0
    repair: Repair | None = None

    def check(self, before: Layer | None, network: Repair) -> None:
        """Raises UserError unless it can follow the layer before in a network of these methods."""
        for what in ("in_channels", "out_channels"):
            whole(f"{self.name}.{what}", getattr(self, what), 2, 1024)
            if getattr(self, what) % 2:
                raise UserError(f"{self.name}.{what}={getattr(self, what)}: must be even")
        whole(f"{self.name}.stride", self.stride, 1, 2)
        if self.out_channels < self.in_channels:
            raise UserError(f"{self.name}: must not have fewer channels than the layer before")
        if before is not None and before.out_channels != self.in_channels:
            raise UserError(
                f"{self.name}.in_channels={self.in_channels}: {before.name} leaves "
                f"{before.out_channels}"
            )
        last = before.stage if before else 0
        whole(f"{self.name}.stage", self.stage, last, last + (before is not None))
        for what in EVERYWHERE if self.repair else ():
            mine, theirs = getattr(self.repair, what), getattr(network, what)
            if mine != theirs:
                raise UserError(f"{self.name}.repair: {what}={mine!r}, the network has {theirs!r}")


def residual_layers(
    widths: Sequence[int], blocks: Sequence[int], double_residual: bool
) -> tuple[Layer, ...]:
    """Returns a ResNet's layers: in each stage so many blocks of two convolutions of its width.

    The first block of all stages but the first halves the map. double_residual : a shortcut round
    every convolution rather than round every two.
    """
    layers, channels = [], widths[0]
    for stage, (out, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            stride, name = 2 if stage and not block else 1, f"stage{stage}.{block}"
            layers += [
                Layer(f"{name}.conv1", channels, out, stride, double_residual, stage),
                Layer(f"{name}.conv2", out, out, 1, True, stage),
            ]
            channels = out
    return tuple(layers)


def check_layers(layers: tuple[Layer, ...], network: Repair) -> None:
    """Raises UserError unless these are a network's layers, in order."""
    before = None
    for layer in layers:
        layer.check(before, network)
        before = layer
    if before is not None and not before.shortcut:
        raise UserError(f"{before.name}: the last layer must have a shortcut, whose stream goes on")
    names = [layer.name for layer in layers]
    for name in names:
        if names.count(name) > 1 or name in ("stem", "head", "input", "class"):
            raise UserError(f"{name}: a layer's name must be its own")
