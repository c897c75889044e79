"""Activations of two slopes per channel, each of any sign."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bnnhw.network.folded import FoldedActivation

NEGATIVE_START = 0.25


class Activation(nn.Module):
    """x (B, C, H, W) -> slope_c * (x - shift_in_c) + shift_out_c, slope by the sign of x - shift.

    kind : prelu (1502.01852) learns the slope below zero, rprelu (ReActNet, 2003.03488) the
        shifts too, maxout (AdaBin, 2208.08084) the slopes on both sides and no shift.
    Slopes may be negative, as most published networks have some; lowering refuses those that the
    integers cannot hold.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.negative = nn.Parameter(torch.full((channels,), NEGATIVE_START))
        if kind == "maxout":
            self.positive = nn.Parameter(torch.ones(channels))
        if kind == "rprelu":
            self.shift_in = nn.Parameter(torch.zeros(channels))
            self.shift_out = nn.Parameter(torch.zeros(channels))
        self.kind = kind

    @torch.no_grad()
    def begin_as_identity(self) -> None:
        """Let y = x, for a network that was trained without it."""
        self.negative.fill_(1.0)

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Returns the slopes below zero and above it, both (C,)."""
        if self.kind == "maxout":
            return self.negative, self.positive
        return self.negative, torch.ones_like(self.negative)

    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns slopes below zero and above it, shift before and after; all (C,)."""
        negative, positive = self.slopes()
        if self.kind == "rprelu":
            return negative, positive, self.shift_in, self.shift_out
        zero = torch.zeros_like(negative)
        return negative, positive, zero, zero

    def forward(self, x: Tensor) -> Tensor:
        """One slope throughout, and what the other adds above zero: faster than a choice."""

        def spread(values: Tensor) -> Tensor:
            return values.to(x.dtype).reshape(1, -1, 1, 1)

        if self.kind == "rprelu":
            x = x - spread(self.shift_in)
        negative, positive = self.slopes()
        y = x * spread(negative) + x.relu() * spread(positive - negative)
        return y + spread(self.shift_out) if self.kind == "rprelu" else y

    @torch.no_grad()
    def folded(self) -> FoldedActivation:
        """Returns the same function, in float64."""

        def plain(values: Tensor) -> np.ndarray:
            return values.cpu().double().numpy()

        negative, positive, shift_in, shift_out = map(plain, self.numbers())
        return FoldedActivation(shift_in, positive, negative, shift_out)
