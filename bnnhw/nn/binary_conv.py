"""Convolutions of signs with signs for training on a CPU: popcounts forward, 8-bit products back.

Forward it is exact, to the rounding of sums to bfloat16. Back, the gradient of each image is
rounded to 8 bits of its greatest magnitude, at random so that its expectation stays: that adds a
few per mille to its variance. Compiled with the other kernels, where the processor has the vector
instructions (AVX-512 with VNNI, VPOPCNTDQ, VBMI and BF16: AMD since Zen 4, Intel since Sapphire
Rapids).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bnnhw.nn import kernels

CHANNELS = (16, 32, 64)
PIXELS = 8  # widths are multiples of it


@functools.cache
def _available() -> bool:
    found = kernels.library()
    return found is not None and bool(found.has_convolutions())


def takes(x: Tensor, rows: int, stride: int) -> bool:
    """Whether `convolve` is the way to convolve signs x (B, C, H, W) with weights (rows, C, 3, 3),
    one zero of padding around."""
    if not kernels.takes(x) or not _available():
        return False
    channels, height, width = x.shape[1:]
    fits = height > 1 and width % PIXELS == 0
    return stride == 1 and rows == channels and channels in CHANNELS and fits


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        result = torch.empty_like(x)
        kernels.call("convolve", x, weight, result, *x.shape)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)
        seed = int(torch.randint(2**32, ()))
        kernels.call("convolve_back", kernels.laid_out(grad), x, weight, of_x, of_weight, *x.shape,
                     seed)  # fmt: skip
        return of_x, of_weight


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """x bfloat16 (B, C, H, W) of +-1, weight (C, C, 3, 3) of +-1 -> bfloat16 (B, C, H, W)."""
    return _Convolution.apply(kernels.laid_out(x), weight.float().contiguous())
