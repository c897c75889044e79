"""Optimisers against their update rules, worked out by hand."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.training import optimisers
from bnnhw.training.losses import Penalty
from bnnhw.training.optimisers import Bop, Optimiser


def parameter(*values: float, grad: list[float] | None = None) -> nn.Parameter:
    result = nn.Parameter(torch.tensor(values, dtype=torch.float32))
    result.grad = None if grad is None else torch.tensor(grad)
    return result


def built(weight_decay: float = 0.0, lr: float = 0.1, **repair) -> tuple[BinaryResNet, Optimiser]:
    torch.manual_seed(0)
    spec = NetworkSpec(8, (2, 4, 4), (8, 8, 1), repair=Repair(**repair))
    model = BinaryResNet(spec)
    penalty = Penalty(model)
    return model, optimisers.build(model, penalty, lr=lr, weight_decay=weight_decay)


def grow(model: BinaryResNet, grad: float) -> None:
    """The same gradient everywhere."""
    for value in model.parameters():
        value.grad = torch.full_like(value, grad)


def test_bop_flips_where_the_mean_agrees_and_exceeds_tau():
    """gamma 0.5, tau 0.1: means after one step are half of the gradients."""
    weight = parameter(1, 1, 1, -1, -1, -1, 1, grad=[0.4, -0.4, 0.2, -0.4, 0.4, -0.19, 0.21])
    Bop([weight], lr=0.5, tau=0.1).step()
    assert weight.tolist() == [-1, 1, 1, 1, -1, -1, -1]


def test_bop_averages_exponentially():
    """gamma 0.25: means 0.1, then 0.75 * 0.1 + 0.25 * 0.4 = 0.175, then 0.13125 - 0.2 < 0."""
    weight = parameter(1.0, grad=[0.4])
    bop = Bop([weight], lr=0.25, tau=0.15)
    bop.step()
    assert weight.item() == 1
    bop.step()
    assert weight.item() == -1
    assert bop.state[weight]["mean"].item() == pytest.approx(0.175)
    weight.grad.fill_(-0.8)
    bop.step()
    assert bop.state[weight]["mean"].item() == pytest.approx(-0.06875) and weight.item() == -1


def test_bop_has_the_threshold_and_the_rate_of_its_paper():
    """gamma 1e-4, so a gradient of 1e-4 makes a mean of 1e-8: not greater than tau."""
    weight = parameter(1.0, 1.0, 1.0, grad=[0.99e-4, 1.01e-4, 1.0])
    bop = Bop([weight])
    bop.step()
    assert weight.tolist() == [1, -1, -1]
    assert bop.state[weight]["mean"].tolist() == pytest.approx([0.99e-8, 1.01e-8, 1e-4])


def test_adam_steps_by_the_rate_at_first():
    model, optimiser = built()
    before = model.head.bias.detach().clone()
    grow(model, 1e-3)
    optimiser.step(0.5)
    assert (model.head.bias - before).tolist() == pytest.approx([-0.05] * 10, rel=1e-4)


def test_sgd_has_nesterov_momentum_and_decays_weights_only():
    """v = g, step g + 0.9 v; then v = 1.9 g, step 2.71 g. A weight's g has 0.01 of it more."""
    model, optimiser = built(optimizer="sgd", weight_decay=0.01)
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(1.0)
    grow(model, 1.0)
    optimiser.step(0.1)
    for name, value in model.named_parameters():
        decays = not name.endswith("bias") and ".norm." not in name
        expected = 1 - 0.01 * 1.9 * (1.01 if decays else 1)
        assert value.flatten().tolist() == pytest.approx([expected] * value.numel()), name
    optimiser.step(0.1)
    assert model.head.bias.tolist() == pytest.approx([1 - 0.019 - 0.0271] * 10)


def test_every_parameter_is_stepped_once():
    for kind in ("adam", "sgd", "bop"):
        model, optimiser = built(
            optimizer=kind, activation="rprelu", feature_binarizer="rsign",
            squeeze_excitation="se", stem="thermometer", downsample="conv1x1-binary",
        )  # fmt: skip
        stepped = [p for part in optimiser.parts for g in part.param_groups for p in g["params"]]
        assert len(stepped) == len({id(p) for p in stepped})
        assert {id(p) for p in stepped} == {id(p) for p in model.parameters()}


def test_learned_scales_of_a_penalty_are_stepped():
    torch.manual_seed(0)
    model = BinaryResNet(NetworkSpec(8, (2, 4, 4), (8, 8, 1), repair=Repair(regularization="r2")))
    penalty = Penalty(model)
    optimiser = optimisers.build(model, penalty, lr=0.1, weight_decay=1.0)
    scale = penalty.scales[0].item()
    penalty.scales[0].grad = torch.tensor(-2.0)
    optimiser.step(1.0)
    assert penalty.scales[0].item() == pytest.approx(scale + 0.1, rel=1e-4)


@pytest.mark.parametrize(
    ("repair", "limit"),
    [
        ({}, 1.5),
        ({"optimizer": "sgd"}, 1.5),
        ({"weight_normalization": "libra"}, math.inf),
        ({"weight_binarizer": "recu"}, math.inf),
        ({"binary_sets": "adabin"}, math.inf),
    ],
)
def test_latent_weights_stay_in_range_unless_standardised(repair, limit):
    model, optimiser = built(lr=2.0, **repair)
    grow(model, -1.0)
    optimiser.step(1.0)
    for weight in model.latent_weights():
        assert (weight.detach() > 1.6).all() if limit > 2 else (weight == 1.5).all()


def test_bop_keeps_weights_binary_and_adam_steps_the_rest():
    model, optimiser = built(optimizer="bop")
    before = [weight.detach().clone() for weight in model.latent_weights()]
    bias = model.head.bias.detach().clone()
    grow(model, 1.0)
    optimiser.step(1.0)
    for old, new in zip(before, model.latent_weights(), strict=True):
        assert set(old.unique().tolist()) == {-1, 1}
        assert (new == -1).all()  # a positive gradient flips what is +1
    assert (model.head.bias - bias).tolist() == pytest.approx([-0.1] * 10, rel=1e-4)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_no_rate_is_no_step(kind):
    model, optimiser = built(optimizer=kind, weight_decay=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grow(model, 1.0)
    optimiser.step(0.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ["adam", "sgd", "bop"])
def test_state_is_all_that_is_needed_to_go_on(kind):
    model, optimiser = built(optimizer=kind, weight_decay=0.01)
    grow(model, 0.3)
    optimiser.step(0.5)
    copy, resumed = built(optimizer=kind, weight_decay=0.01)
    copy.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimiser.state_dict()))
    for network, steps in [(model, optimiser), (copy, resumed)]:
        grow(network, -0.2)
        steps.step(0.9)
    for name, value in model.state_dict().items():
        assert torch.equal(value, copy.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["adam", "sgd", "bop"])
def test_a_state_of_a_gpu_goes_on_here(kind):
    """There the rates are tensors and Adam is capturable, which it cannot be on a CPU."""
    model, optimiser = built(optimizer=kind)
    grow(model, 0.3)
    optimiser.step(0.5)
    state = deepcopy(optimiser.state_dict())
    for part in state["parts"]:
        for group in part["param_groups"]:
            group["lr"] = torch.tensor(group["lr"])
            if "capturable" in group:
                group["capturable"] = True
    copy, resumed = built(optimizer=kind)
    copy.load_state_dict(model.state_dict())
    resumed.load_state_dict(state)
    for network, steps in [(model, optimiser), (copy, resumed)]:
        grow(network, -0.2)
        steps.step(0.9)
    for name, value in model.state_dict().items():
        assert torch.equal(value, copy.state_dict()[name]), name


def test_gradients_are_dropped():
    model, optimiser = built()
    grow(model, 1.0)
    optimiser.zero_grad()
    assert all(value.grad is None for value in model.parameters())
