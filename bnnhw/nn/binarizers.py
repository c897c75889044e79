"""Sign functions with straight-through gradients, for features and weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bnnhw.spec import NetworkSpec


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, -1 elsewhere, in the type of x; no gradient."""
    return torch.sign(x).add_(0.5).sign_()


def pass_between(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """grad where low <= x <= high, else 0; laid out in memory as x.

    One vectorised kernel with strict limits, so they are widened by the least bfloat16 step.
    """
    like = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    grad = grad.contiguous(memory_format=like)
    return torch.ops.aten.hardtanh_backward(grad, x, low * (1 + 2**-7), high * (1 + 2**-7))


class _SignClipped(torch.autograd.Function):
    """sign(x); dx = g where |x| <= 1, else 0 (Hubara 2016, arXiv:1602.02830)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return pass_between(grad, x, -1.0, 1.0)


class _SignPassed(torch.autograd.Function):
    """sign(x); dx = g. Latent weights are kept in range by the optimiser instead."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def binary_weight(latent: Tensor) -> Tensor:
    """sign(latent) with the identity as gradient; same shape."""
    return _SignPassed.apply(latent)


class Ste(nn.Module):
    """Features (B, C, H, W) -> sign(x), gradient clipped at |x| = 1."""

    def forward(self, x: Tensor) -> Tensor:
        return _SignClipped.apply(x)


class RSign(nn.Module):
    """Features (B, C, H, W) -> sign(x - t_c), t learned per channel (arXiv:2003.03488).

    The gradient of the sign is clipped at |x - t_c| = 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        threshold = self.threshold.to(x.dtype).reshape(1, -1, 1, 1)
        return _SignClipped.apply(x - threshold)


def feature_binarizer(spec: NetworkSpec, channels: int) -> nn.Module:
    """The feature binarizer that spec.repair names, for this many channels."""
    return RSign(channels) if spec.repair.feature_binarizer == "rsign" else Ste()
