"""A whole layer of signs in one function, for training on a CPU: two walks forward, two back.

Each image's signs, sums and gradients stay in the cache from one step to the next. The numbers are
those of the layer's parts, but for the rounding to bfloat16 in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnnhw.nn.activations import Activation
from bnnhw.nn.kernels import binary_conv, walks

TRIANGLE = dict(ste=False, approxsign=True, rsign=True)  # the features' gradients that there are


@dataclass(frozen=True)
class Kind:
    """What a layer is beside its numbers.

    triangle : whether the sign's gradient is max(0, 2 - 2|x|); else it is 1 where |x| <= 1.
    rounding : of the residual stream.
    around : the first channel that the shortcut brings x to, every `stride`th pixel of it. None
        where it brings another map or nothing.
    """

    stride: int
    triangle: bool
    rounding: walks.Rounding
    around: int | None


class _Layer(torch.autograd.Function):
    """round(act(norm(conv(sign(x - threshold), weight)) + added)).

    x (B, C, H, W); added of the result's shape or None; threshold (C,); the six after it (O,).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, threshold: Tensor,
        scale: Tensor, bias: Tensor, below: Tensor, above: Tensor, shift_in: Tensor,
        shift_out: Tensor, norm: nn.BatchNorm2d, kind: Kind,
    ) -> Tensor:  # fmt: skip
        y = binary_conv.empty(x, len(weight), kind.stride)
        sums = torch.zeros(2, len(bias), dtype=torch.float64)
        walks.call("convolve", x, threshold, weight, y, sums, *x.shape, len(weight), kind.stride)
        mean, inverse = walks.follow(norm, sums, y.numel() // len(weight))
        slope = scale * inverse
        numbers = torch.stack([slope, bias - mean * slope, below, above, shift_in, shift_out])
        ctx.save_for_backward(x, added, weight, threshold, y, numbers, mean, inverse)
        ctx.kind = kind
        return walks.after(y, added, numbers, kind.rounding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, added, weight, threshold, y, numbers, mean, inverse = ctx.saved_tensors
        kind: Kind = ctx.kind
        inner, norm, by_channel = walks.after_back(
            grad, y, added, numbers, mean, inverse, kind.rounding
        )
        of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)
        sums = torch.zeros(len(threshold), dtype=torch.float64)
        step, around = kind.stride, kind.around
        walks.call(
            "convolve_back", inner, y, norm, around is not None and step == 1, x, threshold,
            kind.triangle, weight, of_x, of_weight, sums, *x.shape, len(weight), step,
            binary_conv.seed(),
        )  # fmt: skip
        if around is not None and step > 1:
            of_x[:, :, ::step, ::step] += inner[:, around : around + x.shape[1]]
        of_added = inner if added is not None and around is None else None
        return of_x, of_added, of_weight, -sums.float(), *by_channel, None, None


def layer(
    x: Tensor, added: Tensor | None, weight: Tensor, threshold: Tensor, norm: nn.BatchNorm2d,
    activation: Activation | None, kind: Kind,
) -> Tensor:  # fmt: skip
    """Returns the layer's output in training.

    x : bfloat16 (B, C, H, W), and weight as `binary_conv.takes` them. threshold : (C,).
    added : what the shortcut brings, or None.

    The running statistics of `norm` are brought up to date.
    """
    added = None if added is None else walks.laid_out(added)
    numbers = walks.slopes_and_shifts(norm, activation)
    result: Tensor = _Layer.apply(
        walks.laid_out(x), added, weight.float().contiguous(), threshold.float().contiguous(),
        norm.weight, norm.bias, *numbers, norm, kind,
    )  # fmt: skip
    return result
