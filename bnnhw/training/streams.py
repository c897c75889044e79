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
    fractions = {"stem": network.spec.formats.fraction(0)}
    fractions |= {s.name: s.fraction for s in network.spec.convolutions() if s.shortcut}
    taps = [name + RESIDUAL for name in fractions]
    found = golden.run(network, pixels.permute(0, 2, 3, 1).cpu().numpy(), taps)
    streams = {
        name: torch.from_numpy(found[name + RESIDUAL]).permute(0, 3, 1, 2) * 2.0**-fraction
        for name, fraction in fractions.items()
    }
    return streams, torch.from_numpy(found["class"])
