"""Convolutions by popcounts are exact forward; back they are right on average and near always."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.kernels import binary_conv, fused
from bnnhw.nn.stems import stem

pytestmark = pytest.mark.usefixtures("convolutions")
SHAPES = [
    (16, 32, 32, 1), (16, 3, 8, 1), (32, 16, 16, 1), (32, 2, 8, 1), (64, 8, 8, 1), (64, 5, 24, 1),
    (16, 32, 32, 2), (16, 2, 24, 2), (32, 16, 16, 2), (32, 6, 8, 2),
]  # fmt: skip


def signs(*shape):
    return torch.randn(shape).sign()


def case(channels, height, width, stride=1, batch=3):
    x = signs(batch, channels, height, width).to(torch.bfloat16)
    weight = signs(stride * channels, channels, 3, 3)
    return x.contiguous(memory_format=torch.channels_last), weight


@pytest.mark.parametrize(("channels", "height", "width", "stride"), SHAPES)
def test_forward_is_the_convolution_to_the_bit(channels, height, width, stride):
    x, weight = case(channels, height, width, stride)
    assert binary_conv.takes(x, len(weight), stride)
    theirs = F.conv2d(x.float(), weight, None, stride, 1).to(torch.bfloat16)
    assert torch.equal(binary_conv.convolve(x, weight, stride), theirs)


def gradients(x, weight, grad, stride=1):
    theirs = torch.ops.aten.convolution_backward(
        grad.float(), x.float(), weight, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
        [True, True, False],
    )  # fmt: skip
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    binary_conv.convolve(x, weight, stride).backward(grad)
    return (x.grad.double(), weight.grad.double()), [part.double() for part in theirs[:2]]


@pytest.mark.parametrize(("channels", "height", "width", "stride"), SHAPES)
def test_gradients_of_whole_bytes_are_exact(channels, height, width, stride):
    """Greatest magnitude 127 in every image, so nothing is rounded but the result."""
    x, weight = case(channels, height, width, stride)
    size = (len(x), len(weight), height // stride, width // stride)
    grad = torch.randint(-127, 128, size).to(torch.bfloat16)
    grad[:, 0, 0, 0] = 127
    scale = torch.tensor([1.0, 0.25, 64.0])[:, None, None, None]  # each image has its own
    mine, theirs = gradients(x, weight, (grad * scale).to(torch.bfloat16), stride)
    assert torch.equal(mine[0], theirs[0].to(torch.bfloat16).double())
    assert torch.allclose(mine[1], theirs[1], rtol=1e-5, atol=0.1)


@pytest.mark.parametrize(("channels", "height", "width", "stride"), SHAPES)
def test_gradients_are_near_and_right_on_average(channels, height, width, stride):
    x, weight = case(channels, height, width, stride)
    size = (len(x), len(weight), height // stride, width // stride)
    grad = torch.randn(size) * torch.tensor([1e-6, 1.0, 50.0])[:, None, None, None]
    grad = grad.to(torch.bfloat16)
    draws = [gradients(x, weight, grad, stride) for _ in range(16)]
    for part in (0, 1):
        exact = draws[0][1][part]
        errors = torch.stack([mine[part] - exact for mine, _ in draws])
        one = errors.square().mean().sqrt() / exact.square().mean().sqrt()
        average = errors.mean(0).square().mean().sqrt() / exact.square().mean().sqrt()
        assert 0 < one < 0.03
        assert average < one / 2  # 1/4 if the draws were independent


@pytest.mark.parametrize("channels", [48, 96])
def test_the_bits_of_thermometers_give_a_gradient_of_the_weights_alone(channels):
    x, weight = signs(3, channels, 16, 24).to(torch.bfloat16), signs(16, channels, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    assert binary_conv.takes(x, 16, 1)
    weight.requires_grad_()
    mine = binary_conv.convolve(x, weight)
    assert torch.equal(mine, F.conv2d(x.float(), weight, padding=1).to(torch.bfloat16))
    grad = torch.randint(-127, 128, mine.shape).to(torch.bfloat16)
    grad[:, 0, 0, 0] = 127
    mine.backward(grad)
    exact = torch.nn.grad.conv2d_weight(x.double(), weight.shape, grad.double(), padding=1)
    assert torch.allclose(weight.grad.double(), exact, rtol=1e-5, atol=0.1)


@pytest.mark.parametrize("repair", [{}, dict(padding="minus-one"), dict(weight_binarizer="recu")])
def test_a_thermometer_stem_uses_them_and_computes_the_same(repair, monkeypatch):
    spec = NetworkSpec(depth=8, repair=Repair(stem="thermometer", **repair))
    made = stem(spec).train()
    x = (torch.randint(0, 256, (4, 3, 32, 32)) - 128) / 64
    calls = []
    convolve = binary_conv.convolve
    monkeypatch.setattr(binary_conv, "convolve", lambda *a: calls.append(1) or convolve(*a))
    with torch.autocast("cpu", torch.bfloat16):
        mine = made(x)
        assert bool(calls) == (repair.get("padding") is None)
        monkeypatch.setattr(binary_conv, "takes", lambda *a: False)
        assert torch.equal(mine, made(x))


def test_images_without_a_gradient_get_none():
    x, weight = case(16, 8, 8)
    mine, _ = gradients(x, weight, torch.zeros_like(x))
    assert not mine[0].any() and not mine[1].any()


def test_rounding_is_repeated_by_the_seed():
    x, weight = case(16, 8, 8)
    grad = torch.randn(x.shape).to(torch.bfloat16)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(gradients(x, weight, grad)[0][1])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def layer(**repair):
    spec = NetworkSpec(depth=8, widths=(16, 32, 64), repair=Repair(**repair))
    return BinaryConvolution(spec.convolutions()[0], spec).train()


@pytest.mark.parametrize("repair", [
    dict(feature_binarizer="ede"), dict(activation="prelu", activation_position="before-add"),
    dict(ensemble="group-2"), dict(feature_normalization="bn-before"),
    dict(scaling="channel-learned", feature_normalization="shift", weight_binarizer="recu"),
], ids=str)  # fmt: skip
def test_a_layer_uses_them_and_computes_the_same(repair, monkeypatch):
    made = layer(**repair)
    x = case(16, 32, 32)[0] * 0.7
    calls = []
    convolve = binary_conv.convolve
    monkeypatch.setattr(binary_conv, "convolve", lambda *a: calls.append(1) or convolve(*a))
    with torch.autocast("cpu", torch.bfloat16):
        mine = made(x, x)
        assert calls
        monkeypatch.setattr(binary_conv, "takes", lambda *a: False)
        assert torch.equal(mine, made(x, x))


@pytest.mark.parametrize("repair", [
    dict(scaling="channel-mean"), dict(scaling="spatial"), dict(binary_sets="adabin"),
    dict(ensemble="weights-2"),
    dict(ensemble="features-2"), dict(padding="minus-one"), dict(two_stage="features-first"),
], ids=str)  # fmt: skip
def test_a_layer_of_more_than_signs_does_without(repair, monkeypatch):
    monkeypatch.setattr(binary_conv, "convolve", None)
    monkeypatch.setattr(fused, "layer", None)
    with torch.autocast("cpu", torch.bfloat16):
        layer(**repair)(case(16, 32, 32)[0] * 0.7)


@pytest.mark.parametrize(("channels", "height", "width", "rows", "stride"), [
    (24, 8, 8, 24, 1), (16, 8, 12, 16, 1), (16, 1, 8, 16, 1), (16, 8, 8, 16, 2), (16, 7, 8, 32, 2),
    (16, 8, 8, 32, 1),
])  # fmt: skip
def test_other_shapes_are_not_taken(channels, height, width, rows, stride):
    x = signs(2, channels, height, width).to(torch.bfloat16)
    assert not binary_conv.takes(x, rows, stride)
