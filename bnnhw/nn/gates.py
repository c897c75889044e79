"""Squeeze and excitation (arXiv:1709.01507): a gate per channel, from the means of its map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.network.folded import FoldedGate

REDUCTION, LEAST_HIDDEN = 4, 2


class Gate(nn.Module):
    """y (B, C, H, W) -> y * hardsigmoid(expand(relu(reduce(mean of y)))), gates in [0, 1].

    C // 4 hidden numbers, at least 2; hardsigmoid(z) = clamp(z / 6 + 1/2, 0, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(LEAST_HIDDEN, channels // REDUCTION)
        self.reduce = nn.Linear(channels, hidden)
        nn.init.zeros_(self.reduce.bias)  # means start around zero: a negative one could be deaf
        self.expand = nn.Linear(hidden, channels)

    def forward(self, y: Tensor) -> Tensor:
        means = y.permute(0, 2, 3, 1).flatten(1, 2).mean(1)  # as y is laid out: faster
        gates = F.hardsigmoid(self.expand(F.relu(self.reduce(means))))
        return y * gates.to(y.dtype)[:, :, None, None]

    @torch.no_grad()
    def folded(self) -> FoldedGate:
        """Returns the same numbers, in float64."""
        parts = (self.reduce.weight, self.reduce.bias, self.expand.weight, self.expand.bias)
        return FoldedGate(*(part.cpu().double().numpy() for part in parts))
