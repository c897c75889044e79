"""Optimisers of a binary network: one for its latent or binary weights, one for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnnhw.nn.binarizers import standardises
from bnnhw.nn.resnet import BinaryResNet

LATENT_LIMIT = 1.5
MOMENTUM = 0.9
BOP_GAMMA = 1e-4  # adaptivity rate and threshold of arXiv:1906.02107, section 5.2
BOP_TAU = 1e-8

Rate = float | Tensor
OWN = ("lr", "capturable")  # what a state of another device must not change


class Bop(torch.optim.Optimizer):
    """Flips binary weights, none of which has a latent value (arXiv:1906.02107).

    m = (1 - lr) m + lr * gradient. A weight of -1 or +1 changes its sign where |m| > tau and m has
    the weight's sign. lr is the paper's adaptivity rate gamma.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], lr: Rate = BOP_GAMMA, tau: float = BOP_TAU
    ) -> None:
        super().__init__(weights, dict(lr=lr, tau=tau))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                mean = state["mean"].lerp_(weight.grad, group["lr"])
                weight.mul_(1 - 2 * (weight * mean > group["tau"]).to(weight.dtype))


class Optimiser:
    """Steps all parameters of a training at a part of their rates.

    parts : the optimisers, at their full rates. held : parameters kept within +-LATENT_LIMIT.
    """

    def __init__(
        self, parts: Sequence[torch.optim.Optimizer], held: Sequence[nn.Parameter]
    ) -> None:
        self.parts = tuple(parts)
        self.held: list[Tensor] = list(held)
        for part in self.parts:
            for group in part.param_groups:
                group["initial_lr"] = float(group["lr"])

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Take one step at `rate`, 0 to 1, of the full rates."""
        self.set_rate(rate)
        self.go()

    def set_rate(self, rate: float) -> None:
        """Have `go` step at `rate`, 0 to 1, of the full rates."""
        for part in self.parts:
            for group in part.param_groups:
                lr = rate * group["initial_lr"]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr)
                else:
                    group["lr"] = lr

    @torch.no_grad()
    def go(self) -> None:
        """Take one step at the rate that was set."""
        for part in self.parts:
            part.step()
        if self.held:
            torch._foreach_clamp_min_(self.held, -LATENT_LIMIT)
            torch._foreach_clamp_max_(self.held, LATENT_LIMIT)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything but the parameters themselves, as plain values and tensors."""
        return dict(parts=[part.state_dict() for part in self.parts])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the `state_dict` of an Optimiser of an equal model."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            mine = [{key: group[key] for key in OWN if key in group} for group in part.param_groups]
            part.load_state_dict(saved)
            for group, own in zip(part.param_groups, mine, strict=True):
                group.update(own)


def build(model: BinaryResNet, penalty: nn.Module, *, lr: float, weight_decay: float) -> Optimiser:
    """Returns the optimiser that model.spec.repair.optimizer names, for a model and its Penalty.

    lr : the full rate; Bop's is the paper's gamma, and decays as the others do.
    weight_decay : of weights only, not of norms, thresholds, slopes and scales.

    On a GPU the rates are tensors, so that a captured step follows them. Latent weights stay within
    +-LATENT_LIMIT, unless they are standardised before their sign.
    """
    repair, latent = model.spec.repair, model.latent_weights()
    flipped = latent if repair.optimizer == "bop" else []
    groups = _groups(model, penalty, {id(weight) for weight in flipped}, weight_decay)
    device = latent[0].device

    def rate(value: float) -> Rate:
        return torch.tensor(value, device=device) if device.type == "cuda" else value

    if repair.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, lr=rate(lr), momentum=MOMENTUM, nesterov=True, fused=True)
        parts: list[torch.optim.Optimizer] = [sgd]
    else:
        graphed = device.type == "cuda"
        parts = [torch.optim.Adam(groups, lr=rate(lr), fused=True, capturable=graphed)]
    if flipped:
        parts.append(Bop(flipped, rate(BOP_GAMMA)))
    return Optimiser(parts, [] if flipped or standardises(repair) else latent)


def _groups(
    model: BinaryResNet, penalty: nn.Module, without: set[int], weight_decay: float
) -> list[dict[str, Any]]:
    """Returns all parameters but those of the ids `without`: weights with decay, others without."""
    decayed: list[nn.Parameter] = []
    free = list(penalty.parameters())
    for name, parameter in model.named_parameters():
        if id(parameter) not in without:
            is_weight = name.endswith("weight") and parameter.ndim > 1
            (decayed if is_weight else free).append(parameter)
    return [dict(params=decayed, weight_decay=weight_decay), dict(params=free)]
