"""Signs, the gradients that stand for theirs, and binary weights against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from bnnhw.network.repair import Repair
from bnnhw.nn.binarizers import SurrogateSign, WeightBinarizer, sign

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@DTYPES
def test_sign_has_two_values_and_zero_is_plus_one(dtype):
    points = [-3.0, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, 3.0]
    got = sign(torch.tensor(points, dtype=dtype))
    assert got.dtype == dtype
    assert got.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]


def slopes(kind: str, points: list[float], dtype=torch.float32, done: float = 0.0) -> list[float]:
    """The gradient at each point, from upstream gradients of 1, 2, 3, ..."""
    binarizer = SurrogateSign(kind)
    binarizer.anneal(done)
    x = torch.tensor(points, dtype=dtype).reshape(1, 1, -1, 1).requires_grad_()
    y = binarizer(x)
    assert y.flatten().tolist() == [1.0 if p >= 0 else -1.0 for p in points]
    upstream = torch.arange(1, len(points) + 1, dtype=dtype)
    y.backward(upstream.reshape(y.shape))
    assert x.grad.dtype == dtype
    return (x.grad.flatten().float() / upstream.float()).tolist()


@DTYPES
def test_ste_is_one_up_to_one_inclusive(dtype):
    assert slopes("ste", [-1.5, -1.0, -0.25, 0.0, 1.0, 1.5], dtype) == [0, 1, 1, 1, 1, 0]


def test_identity_is_one():
    assert slopes("identity", [-5.0, -1.0, 0.0, 5.0]) == [1, 1, 1, 1]


@DTYPES
def test_approxsign_is_a_triangle(dtype):
    """2 + 2x on [-1, 0), 2 - 2x on [0, 1), else 0 (arXiv:1808.00278); ReActNet's sign has it."""
    points = [-1.5, -1.0, -0.75, -0.25, 0.0, 0.25, 0.75, 1.0, 1.5]
    for kind in ("approxsign", "rsign"):
        assert slopes(kind, points, dtype) == [0, 0, 0.5, 1.5, 2, 1.5, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        # t = 0.01, k = 100: 1 - tanh(0.01 x)^2
        (0.0, [1.0, 1 - 0.0099996667**2, 1 - 0.0299910032**2]),
        # t = 0.01 * 1000^(2/3) = 1, k = 1: 1 - tanh(x)^2 of 0, 1, 3
        (2 / 3, [1.0, 0.4199743, 0.0098660]),
        # t = 10, k = 1: 10 (1 - tanh(10 x)^2)
        (1.0, [10.0, 8.2446e-8, 0.0]),
    ],
)
def test_ede_grows_sharp(done, expected):
    for side in (1, -1):
        got = slopes("ede", [0.0, 1.0 * side, 3.0 * side], done=done)
        assert got == pytest.approx(expected, rel=1e-4, abs=2e-6)


def test_ede_within_its_sharp_peak():
    """t = 10: 10 (1 - tanh(1)^2) = 4.199743 at 0.1."""
    assert slopes("ede", [0.1], done=1.0) == pytest.approx([4.199743], rel=1e-5)
    assert slopes("ede", [0.1], torch.bfloat16, 1.0) == pytest.approx([4.2], rel=2e-2)


def test_swishsign_is_the_derivative_that_is_published():
    """b (2 - b x tanh(b x / 2)) / (1 + cosh(b x)) with b = 5 (arXiv:1812.11800)."""
    points = [0.0, 0.1, -0.1, 0.4, 0.8, -2.0]
    expected = [5 * (2 - 5 * x * math.tanh(2.5 * x)) / (1 + math.cosh(5 * x)) for x in points]
    assert expected[0] == 5 and expected[4] < 0  # the overshoot of SignSwish beyond its peak
    assert slopes("swishsign", points) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    rough = slopes("swishsign", points, torch.bfloat16)
    assert rough == pytest.approx(expected, rel=5e-2, abs=5e-2)


@pytest.mark.parametrize("kind", ["ste", "approxsign", "ede", "swishsign"])
def test_gradients_keep_the_layout_of_feature_maps(kind):
    x = torch.randn(2, 4, 3, 5).to(memory_format=torch.channels_last).requires_grad_()
    SurrogateSign(kind)(x).backward(torch.ones(2, 4, 3, 5))
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


def test_only_the_gradient_changes_with_the_schedule():
    for kind in ("ede", "approxsign"):
        binarizer = SurrogateSign(kind)
        assert not binarizer.state_dict() and not list(binarizer.parameters())
    assert not WeightBinarizer(Repair(weight_binarizer="recu")).state_dict()


def latent(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.3 + 0.05 * torch.randn(shape, generator=generator)).requires_grad_()


def test_plain_weights_pass_the_whole_gradient():
    weights = torch.tensor([-3.0, -0.0, 1e-30, 3.0]).reshape(2, 2, 1, 1).requires_grad_()
    binary = WeightBinarizer(Repair())(weights)
    assert binary.flatten().tolist() == [-1, 1, 1, 1]
    binary.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(2, 2, 1, 1))
    assert weights.grad.flatten().tolist() == [1, 2, 3, 4]


def test_ede_weights_follow_the_schedule():
    """t = 1 two thirds through: 1 - tanh(0.5)^2 = 0.7864477."""
    binarizer = WeightBinarizer(Repair(weight_binarizer="ede"))
    binarizer.anneal(2 / 3)
    weights = torch.full((1, 2, 1, 1), 0.5, requires_grad=True)
    binarizer(weights).sum().backward()
    assert weights.grad.flatten().tolist() == pytest.approx([0.7864477] * 2, rel=1e-5)


@pytest.mark.parametrize("change", [{"weight_normalization": "libra"}, {"binary_sets": "adabin"}])
def test_libra_weights_have_mean_zero_and_variance_one(change):
    weights = latent(4, 16, 3, 3)
    binarizer = WeightBinarizer(Repair(**change))
    got = binarizer.normalised(weights).detach().double().flatten(1)
    assert got.mean(1).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert got.square().mean(1).tolist() == pytest.approx([1.0] * 4, rel=1e-5)
    plus = (binarizer(weights) > 0).flatten(1)
    assert torch.equal(plus, weights.flatten(1) >= weights.flatten(1).mean(1, keepdim=True))
    assert (WeightBinarizer(Repair())(weights) > 0).all()


def test_libra_gradient_has_no_part_that_shifts_or_scales():
    """A function of standardised weights cannot change with their mean and deviation."""
    weights = latent(2, 4, 3, 3)
    binary = WeightBinarizer(Repair(weight_normalization="libra"))(weights)
    binary.backward(torch.randn(binary.shape, generator=torch.Generator().manual_seed(1)))
    grad, centred = weights.grad.flatten(1), (weights - 0.3).detach().flatten(1)
    assert grad.abs().max() > 1
    assert grad.sum(1).abs().max() < 1e-3 and (grad * centred).sum(1).abs().max() < 1e-3


@pytest.mark.parametrize(("done", "tau"), [(0.0, 0.85), (0.5, 0.902856), (1.0, 0.99)])
def test_recu_clips_laplace_weights_to_their_quantiles(done, tau):
    """0.85 + 0.14 (e^0.5 - 1) / (e - 1) = 0.902856; a share of 1 - tau lies beyond each end."""
    binarizer = WeightBinarizer(Repair(weight_binarizer="recu"))
    binarizer.anneal(done)
    torch.manual_seed(0)
    weights = torch.distributions.Laplace(0.2, 0.05).sample((4, 500, 10, 10))
    got = binarizer.normalised(weights)
    assert binarizer.tau.item() == pytest.approx(tau, abs=1e-5)
    for end in (got.min(), got.max()):
        assert (got == end).double().mean().item() == pytest.approx(1 - tau, abs=0.004)
    # unit variance is a scale of 1 / sqrt(2); the quantile of tau is -log(2 - 2 tau) of it
    assert got.max().item() == pytest.approx(-math.log(2 - 2 * tau) / math.sqrt(2), rel=0.02)


def test_recu_keeps_signs_and_moves_every_weight():
    weights = latent(2, 8, 3, 3)
    binarizer = WeightBinarizer(Repair(weight_binarizer="recu"))
    libra = WeightBinarizer(Repair(weight_normalization="libra"))
    binary = binarizer(weights)
    assert torch.equal(binary, libra(weights))
    binary.backward(torch.randn(binary.shape, generator=torch.Generator().manual_seed(1)))
    assert (weights.grad != 0).all()


def test_features_first_has_real_weights_in_the_first_half_of_training():
    weights = latent(3, 4, 3, 3)
    binarizer = WeightBinarizer(Repair(two_stage="features-first"))
    for done, training, real in [(0.0, True, True), (0.49, True, True), (0.5, True, False),
                                 (0.49, False, False)]:  # fmt: skip
        binarizer.anneal(done)
        got = binarizer.train(training)(weights)
        assert got.abs().flatten(1).mean(1).tolist() == pytest.approx([1.0] * 3, rel=1e-5)
        assert (len(got.unique()) > 2) == real
        if real:
            ratio = got / weights
            assert (ratio.flatten(1) - ratio[:, :1, 0, 0]).abs().max() < 1e-3
