"""What a float model's integer network makes of images, for training with it."""

from __future__ import annotations

import torch
from torch import Tensor

from bnnhw import golden
from bnnhw.lowering.lower import lower
from bnnhw.nn import BinaryResNet

RESIDUAL = ".residual"


def integers(model: BinaryResNet, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the residual streams and the classes: a bnnhw.training.exact.Integers."""
    network = lower(model)
    streaming = [shape.name for shape in network.spec.convolutions() if shape.shortcut]
    taps = [name + RESIDUAL for name in ("stem", *streaming)]
    found = golden.run(network, pixels.permute(0, 2, 3, 1).cpu().numpy(), taps)
    step = 2.0**-network.spec.formats.residual_fraction
    streams = {
        name.removesuffix(RESIDUAL): torch.from_numpy(found[name]).permute(0, 3, 1, 2) * step
        for name in taps
    }
    return streams, torch.from_numpy(found["class"])
