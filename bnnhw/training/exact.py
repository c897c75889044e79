"""Trains what runs: the integer network's residual streams take the float network's place.

Gradients are the float network's; they pass the difference as it is. So every constant is trained
as the device rounds it, and training sees every floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from bnnhw.nn.resnet import BinaryResNet

Integers = Callable[[BinaryResNet, Tensor], tuple[dict[str, Tensor], Tensor]]
"""(model, pixels uint8 (B, C, H, W)) -> what the model's integer network makes of them: the real
values of its residual streams, {"stem" or name of a convolution: float32 (B, C, H, W)}, and the
classes int64 (B,)."""


def freeze_statistics(model: nn.Module) -> None:
    """Let batch norm use its running statistics, as the device does, and keep them as they are."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


@contextmanager
def follow(model: BinaryResNet, streams: dict[str, Tensor]) -> Iterator[None]:
    """Within the context the model's residual streams have these values.

    What the model computes itself has no part in them.
    """
    parts = {"stem": model.stem, **{layer.shape.name: layer for layer in model.layers()}}
    hooks = [
        parts[name].register_forward_hook(partial(_replace, values))
        for name, values in streams.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _replace(values: Tensor, part: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """Returns the values, to the bit. The gradient is the output's."""
    output = output.float()
    return values.to(output.device) + (output - output.detach())
