"""Convolutions of signs with signs for training on a CPU: popcounts forward, 8-bit products back.

Forward the sums are exact and rounded to bfloat16. Back, the gradient of each image is rounded to 8
bits of its greatest magnitude. It is rounded at random, so that its expectation stays.

They are compiled with the other kernels where the processor has the vector instructions: AVX-512
with VNNI, VPOPCNTDQ, VBMI and BF16 (AMD since Zen 4, Intel since Sapphire Rapids).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bnnhw.nn.kernels import walks

PIXELS = 8  # widths are multiples of it


@functools.cache
def _compiled_for(before: int, after: int, stride: int) -> bool:
    found = walks.library()
    return found is not None and bool(found.convolves(before, after, stride))


def takes(x: Tensor, rows: int, stride: int) -> bool:
    """Returns whether `convolve` is the way to convolve these signs.

    x (B, C, H, W), weights (rows, C, 3, 3), one zero of padding around.
    """
    channels, height, width = x.shape[1:]
    fits = height > 1 and height % stride == 0 and width % PIXELS == 0
    return fits and walks.takes(x) and _compiled_for(channels, rows, stride)


def empty(x: Tensor, rows: int, stride: int) -> Tensor:
    """Returns the tensor that the convolution is written to, (B, rows, H / stride, W / stride)."""
    size = (len(x), rows, x.shape[2] // stride, x.shape[3] // stride)
    return torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        result = empty(x, len(weight), stride)
        walks.call("convolve", x, None, weight, result, None, *x.shape, len(weight), stride)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight)
        walks.call(
            "convolve_back", walks.laid_out(grad), None, None, 0, x, None, 0, weight, of_x,
            of_weight, None, *x.shape, len(weight), ctx.stride, seed(),
        )  # fmt: skip
        return of_x, of_weight, None


def seed() -> int:
    """Returns the seed of a gradient's rounding."""
    return int(torch.randint(2**32, ()))


def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Returns bfloat16 (B, O, H / stride, W / stride).

    x bfloat16 (B, C, H, W) and weight (O, C, 3, 3) are +-1.
    """
    result: Tensor = _Convolution.apply(walks.laid_out(x), weight.float().contiguous(), stride)
    return result
