"""New latent weights, the real ones behind binary ones."""

from __future__ import annotations

import torch
from torch import nn

from bnnhw.network.repair import Repair

LATENT_SIGMA = 0.05


def latent(repair: Repair, *shape: int) -> nn.Parameter:
    """Returns random latent weights, or +-1 where the optimiser flips the weights themselves."""
    weights = torch.empty(shape)
    nn.init.normal_(weights, std=LATENT_SIGMA)
    return nn.Parameter(weights.sign() if repair.optimizer == "bop" else weights)
