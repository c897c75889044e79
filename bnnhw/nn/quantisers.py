"""Fake quantisation: forward the integer network's rounding, backward straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bnnhw.network.integer import saturation
from bnnhw.network.operations import INT8_MAX
from bnnhw.network.spec import NumberFormats
from bnnhw.nn.binarizers import pass_inside
from bnnhw.nn.kernels import walks

PIXEL_UNITS = 64  # bytes to one real unit of the stem's input


class _Residual(torch.autograd.Function):
    """clamp(floor(x * 2**fraction + 1/2), low, high) / 2**fraction.

    The gradient passes where the result is not saturated.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, low: float, high: float) -> Tensor:
        if walks.takes(x):
            y = walks.quantise(x, step, low, high)
        else:
            # not in place: torch.compile would lose the gradient
            y = torch.floor(x / step + 0.5).clamp(low, high) * step
        ctx.save_for_backward(y)
        ctx.rounding = step, low, high
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        step, low, high = ctx.rounding
        if y.ndim == 4 and walks.takes(y):
            of_x = walks.between(grad, y, (low + 1) * step, (high - 1) * step)
        else:
            of_x = pass_inside(grad, y, low * step, high * step)
        return of_x, None, None, None


def rounding(formats: NumberFormats) -> walks.Rounding:
    """Returns the residual stream's step, and the least and greatest number of steps."""
    low, high = saturation(formats.residual_width)
    return 2.0**-formats.residual_fraction, float(low), float(high)


def quantise_residual(x: Tensor, formats: NumberFormats) -> Tensor:
    """Returns the residual stream rounded (half up) and saturated as on the device; shape of x."""
    rounded: Tensor = _Residual.apply(x, *rounding(formats))
    return rounded


def int8_scale(weight: Tensor, per_channel: bool) -> Tensor:
    """Returns the real value of one int8 step: the greatest magnitude / 127, or 1 where all are
    zero.

    per_channel : one scale per leading index, shaped (O, 1, ...); else a scalar tensor.
    """
    dims = tuple(range(1, weight.ndim)) if per_channel else tuple(range(weight.ndim))
    greatest = weight.detach().abs().amax(dims, keepdim=per_channel)
    return torch.where(greatest > 0, greatest / INT8_MAX, torch.ones_like(greatest))


def quantise_weight(weight: Tensor, per_channel: bool) -> Tensor:
    """Returns weights rounded to int8 multiples of `int8_scale`, gradient straight through."""
    scale = int8_scale(weight, per_channel)
    rounded = torch.round(weight.detach() / scale) * scale
    return weight + (rounded - weight).detach()


class PixelScaling(nn.Module):
    """Bytes (B, C, H, W) -> (byte - 128) / 64: exact, and a zero-padded tap is byte 128."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) - 128) / PIXEL_UNITS
