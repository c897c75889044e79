"""Sign functions for features and weights, and what stands for their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.network.repair import Repair
from bnnhw.nn.kernels import walks

SHARPNESS = (0.01, 10.0)  # t of ede, at the start and at the end of training
TAU = (0.85, 0.99)  # of recu, likewise
BETA = 5.0  # of swishsign
REAL_WEIGHTS = 0.5  # features-first: the part of the schedule with real weights
VARIANCE_FLOOR = 1e-10
ONE = torch.ones(())

Surrogate = Callable[[Tensor, Tensor, Tensor], Tensor]  # (gradient of the sign, x, t) -> of x


def sign(x: Tensor) -> Tensor:
    """Returns +1 where x >= 0 and -1 elsewhere, in the type of x, without a gradient."""
    if walks.takes(x):
        return walks.sign(x)
    return torch.copysign(ONE, x + 0.0)  # the sum makes -0 a +0


def _laid_out(grad: Tensor, x: Tensor) -> Tensor:
    """Returns grad laid out as feature maps are. Kernels of mixed layouts are slow."""
    like = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    return grad.contiguous(memory_format=like)


def pass_inside(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Returns grad where low < x < high, else 0, laid out in memory as x."""
    inside: Tensor = torch.ops.aten.hardtanh_backward(_laid_out(grad, x), x, low, high)
    return inside


def _whole(grad: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return grad


def _clipped(grad: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Returns grad where |x| <= 1, up to the next bfloat16, else 0."""
    if x.ndim == 4 and walks.takes(x):
        return walks.between(grad, x, -1.0, 1.0)
    return pass_inside(grad, x, -1 - 2**-7, 1 + 2**-7)


def _triangle(grad: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Returns grad * max(0, 2 - 2|x|)."""
    if x.ndim == 4 and walks.takes(x):
        return walks.triangle(grad, x)
    slope = torch.rsub(x.abs(), 2.0, alpha=2.0).clamp_min_(0.0)
    return slope.mul_(_laid_out(grad, x))


def _annealed(grad: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Returns grad * k t (1 - tanh(t x)^2) with k = max(1 / t, 1).

    1 - tanh(h)^2 is 4 s (1 - s), with s the logistic function of -|2 h|. That is exact where it is
    small.
    """
    s = x.abs().mul_(-2 * t).sigmoid_()
    slope: Tensor = torch.ops.aten.sigmoid_backward(_laid_out(grad, x), s)
    return slope.mul_(4 * t.clamp_min(1.0))


def _swish(grad: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Returns grad * the derivative of 2 s(z) (1 + z (1 - s(z))) - 1, s the logistic function, z =
    b x.

    The derivative is 2 b s (1 - s) (2 + z - 2 z s), the same at z and -z.
    """
    z = x.abs().mul_(-BETA)
    s = z.sigmoid()
    slope = torch.ops.aten.sigmoid_backward(_laid_out(grad, x), s).mul_(4 * BETA)
    return torch.addcmul(slope, slope, z.addcmul_(z, s, value=-2.0), value=0.5)


SURROGATES: dict[str, Surrogate] = {
    "identity": _whole,
    "ste": _clipped,
    "rsign": _triangle,
    "approxsign": _triangle,
    "ede": _annealed,
    "swishsign": _swish,
}


class _Sign(torch.autograd.Function):
    """sign(x); dx = surrogate(g, x, t)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x, t)
        ctx.surrogate = surrogate
        return sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, t = ctx.saved_tensors
        return ctx.surrogate(grad, x, t), None, None


class SurrogateSign(nn.Module):
    """x of any shape -> sign(x), with the gradient that stands for that of the sign.

    kind : ste    1 where |x| <= 1, else 0 (Hubara 2016, arXiv:1602.02830)
        approxsign  2 - 2|x| where |x| < 1, else 0 (Bi-Real Net, arXiv:1808.00278); rsign's as
            well (ReActNet, arXiv:2003.03488)
        ede         max(1, t) (1 - tanh(t x)^2), t growing with `anneal` (IR-Net, arXiv:1909.10788)
        swishsign   that of SignSwish with beta 5 (BNN+, arXiv:1812.11800)
        identity    1
    """

    sharpness: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.surrogate, self.anneals = SURROGATES[kind], kind == "ede"
        self.register_buffer("sharpness", torch.tensor(SHARPNESS[0]), persistent=False)

    def anneal(self, done: float) -> None:
        """Set ede's t to that of a schedule of which `done`, 0 to 1, is over."""
        first, last = SHARPNESS
        if self.anneals:
            self.sharpness.fill_(first * (last / first) ** done)

    def forward(self, x: Tensor) -> Tensor:
        signs: Tensor = _Sign.apply(x, self.sharpness, self.surrogate)
        return signs


def standardised(latent: Tensor) -> Tensor:
    """Returns weights (O, ...) shifted and scaled to zero mean and unit variance for each o."""
    return F.layer_norm(latent, latent.shape[1:], eps=VARIANCE_FLOOR)


def standardises(repair: Repair) -> bool:
    """Returns whether scale and mean of latent weights do not matter under a Repair."""
    return (
        repair.weight_normalization == "libra"
        or repair.weight_binarizer == "recu"
        or repair.binary_sets == "adabin"
    )


class WeightBinarizer(nn.Module):
    """Latent weights (O, I, kh, kw) -> their signs, by the methods of a Repair.

    weight_binarizer : the gradient: ste 1; ede as of features; recu 1, and weights beyond their
        quantiles move with the others' mean and deviation only.
    two_stage=features-first : real weights of mean magnitude 1 per output channel instead, in
        training mode and while `anneal` has not been told of half of the schedule.
    """

    tau: Tensor

    def __init__(self, repair: Repair) -> None:
        super().__init__()
        self.clips = repair.weight_binarizer == "recu"
        self.standardises = standardises(repair)
        self.features_first = repair.two_stage == "features-first"
        self.sign = SurrogateSign("ede" if repair.weight_binarizer == "ede" else "identity")
        self.register_buffer("tau", torch.tensor(TAU[0]), persistent=False)
        self.real = self.features_first

    def anneal(self, done: float) -> None:
        """Set t, tau and the kind of weights to those of a schedule of which `done` is over.

        tau grows exponentially, as its authors' does.
        """
        first, last = TAU
        if self.clips:
            self.tau.fill_(first + (last - first) * math.expm1(done) / math.expm1(1))
        self.real = self.features_first and done < REAL_WEIGHTS
        self.sign.anneal(done)

    def normalised(self, latent: Tensor) -> Tensor:
        """Returns what is signed: the latent weights, standardised and clipped where the Repair
        says so.

        recu standardises and then clips. Its limit is the tau quantile of the Laplace distribution
        that fits the whole tensor: -b log(2 - 2 tau), with b the mean magnitude (arXiv:2103.12369).
        """
        weights = standardised(latent) if self.standardises else latent
        if self.clips:
            limit = -weights.detach().abs().mean() * torch.log(2 - 2 * self.tau)
            weights = weights.clamp(-limit, limit)
        return weights

    def forward(self, latent: Tensor) -> Tensor:
        weights = self.normalised(latent)
        if self.real and self.training:
            return weights / weights.abs().mean(tuple(range(1, weights.ndim)), keepdim=True)
        signs: Tensor = self.sign(weights)
        return signs
