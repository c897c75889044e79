"""The fast walks give what PyTorch gives, up to bfloat16's rounding, forward and back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.activations import Activation
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.kernels import walks

pytestmark = pytest.mark.usefixtures("one_thread")
ROUNDING = 2**-8  # of bfloat16, relative


def maps(*shape, scale=1.0):
    values = torch.randn(*shape) * scale
    return values.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def activation(kind, channels):
    made = Activation(kind, channels)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.rand(channels) + 0.1)
    return made


def leaves(*tensors):
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


def close(mine, theirs, least=1.0):
    """Within four roundings of the greatest value, or of `least` where that is smaller."""
    size = max(least, float(theirs.detach().abs().max()))
    assert float((mine.double() - theirs.double()).abs().max()) <= 4 * ROUNDING * size


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)
    assert walks.library() is not None, "g++ must be there for these tests"


@pytest.mark.parametrize("kind", ["prelu", "rprelu", "maxout"])
@pytest.mark.parametrize("channels", [16, 24, 32, 64])
@pytest.mark.parametrize(("added", "batch"), [(True, 4), (False, 4), (True, 5)])
def test_tail_is_norm_addition_and_activation(kind, channels, added, batch):
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    act = activation(kind, channels)
    y = maps(batch, channels, 9, 7, scale=20.0) + 8
    stream = maps(batch, channels, 9, 7) if added else None
    grad = maps(batch, channels, 9, 7)

    plain = copy.deepcopy(norm).double()
    slow = copy.deepcopy(act).double()
    y64, stream64 = leaves(y.double(), stream.double() if added else None)
    expected = slow(plain(y64) + (stream64 if added else 0.0))
    expected.backward(grad.double())

    y16, stream16 = leaves(y, stream)
    result = walks.tail(y16, stream16, norm, act)
    result.backward(grad)

    close(result, expected)
    close(y16.grad, y64.grad, least=0.0)
    if added:
        close(stream16.grad, stream64.grad)
    pairs = [*zip(norm.parameters(), plain.parameters(), strict=True)]
    pairs += zip(act.parameters(), slow.parameters(), strict=True)
    for mine, theirs in pairs:
        close(mine.grad, theirs.grad)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(
            getattr(norm, name), getattr(plain, name).float(), rtol=1e-4, atol=1e-4
        )
    assert int(norm.num_batches_tracked) == 1


def test_gradients_pass_between_limits_of_which_both_are_within():
    x = torch.tensor([-1.5, -1.0078125, -1.0, 0.0, 1.0, 1.0078125, 9.0]).bfloat16()
    grad = torch.arange(1.0, 8).bfloat16()
    shaped = [values.reshape(1, 7, 1, 1) for values in (grad, x)]
    assert walks.between(*shaped, -1.0, 1.0).flatten().tolist() == [0, 0, 3, 4, 5, 0, 0]


def test_signs_and_their_triangle():
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 0.5, -0.75, 1.0, -1.5, 3.0]).bfloat16()
    assert walks.sign(x).tolist() == [1, 1, 1, -1, 1, -1, 1, -1, 1]
    grad = torch.full((9,), -3.0).bfloat16()
    mine = walks.triangle(grad.reshape(1, 9, 1, 1), x.reshape(1, 9, 1, 1)).flatten()
    expected = grad.float() * (2 - 2 * x.float().abs()).clamp_min(0)
    assert torch.equal(mine, expected.bfloat16())


@pytest.mark.parametrize(("channels", "height"), [(16, 8), (24, 5), (64, 3)])
def test_signs_above_thresholds_and_their_gradients(channels, height):
    x, grad = (maps(3, channels, height, 8) for _ in range(2))
    threshold = torch.randn(channels) * 0.5
    threshold[0] = float(x[0, 0, 0, 0])  # not below it: +1
    mine = leaves(x, threshold)
    y = walks.above(*mine)
    y.backward(grad)
    distance = x.float() - threshold[:, None, None]
    assert torch.equal(y, torch.where(distance >= 0, 1.0, -1.0).bfloat16())
    expected = grad.float() * (2 - 2 * distance.abs()).clamp_min(0)
    close(mine[0].grad, expected)
    torch.testing.assert_close(mine[1].grad, -expected.sum((0, 2, 3)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("step", [1 / 64, 0.5, 4.0])
def test_rounding_is_half_up_and_saturates(step):
    x = (torch.arange(-600, 600) * step / 4).bfloat16()  # halves, and both limits
    expected = (x.float() / step + 0.5).floor().clamp(-128, 127) * step
    assert torch.equal(walks.quantise(x, step, -128, 127), expected.bfloat16())


def test_any_layout_without_gaps_is_walked_as_it_lies():
    x = maps(2, 16, 4, 6)
    for layout in (x, x.contiguous(), x[:, :, ::2], x[:, 3:7]):
        signs = walks.sign(layout)
        assert torch.equal(signs, torch.where(layout >= 0, 1.0, -1.0).bfloat16())


@pytest.mark.parametrize(
    "repair",
    [
        Repair(activation="rprelu"),
        Repair(double_residual=False, activation="rprelu", downsample="avgpool-duplicate"),
        Repair(activation="maxout", feature_binarizer="approxsign", ensemble="weights-2"),
        Repair(activation="prelu", activation_position="before-add"),
        Repair(feature_binarizer="rsign"),
        Repair(double_residual=True),
    ],
)
def test_a_layer_trains_alike_with_them_and_without(repair, monkeypatch):
    spec = NetworkSpec(depth=8, widths=(16, 32, 64), input=(8, 8, 3), repair=repair)
    takes = walks.takes
    for shape in spec.convolutions()[:3]:
        layer = BinaryConvolution(shape, spec)
        x = maps(8, shape.in_channels, 8 // (1 if shape.in_channels == 16 else 2), 8)
        found = []
        for fast in (True, False):
            monkeypatch.setattr(walks, "takes", lambda x, fast=fast: fast and takes(x))
            model, (features, stream) = copy.deepcopy(layer), leaves(x, x)
            with torch.autocast("cpu", torch.bfloat16):
                result = model(features, stream)
            torch.manual_seed(5)
            result.backward(torch.randn(result.shape).to(result.dtype))
            grads = [p.grad for p in model.parameters()]
            found.append([features.grad, stream.grad, *grads, *model.buffers()])
        for mine, theirs in zip(*found, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                scale = float(theirs.float().norm()) or 1.0
                assert float((mine.float() - theirs.float()).norm()) <= 0.05 * scale
