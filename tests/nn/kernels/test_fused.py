"""A layer as one function computes what its parts do, up to bfloat16's rounding, and so back."""

from __future__ import annotations

import copy

import pytest
import torch

from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.kernels import binary_conv, fused

pytestmark = pytest.mark.usefixtures("convolutions")
WIDE = NumberFormats(residual_width=12, residual_fraction=8)
COARSE = NumberFormats(residual_width=8, residual_fraction=6)  # saturates


def maps(*shape):
    return torch.randn(shape).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def layer(place, **repair):
    spec = NetworkSpec(depth=8, widths=(16, 32, 64), repair=Repair(**repair))
    made = BinaryConvolution(spec.convolutions()[place], spec).train()
    with torch.no_grad():
        made.norm.weight.uniform_(-1.0, 1.0)
        made.norm.bias.normal_()
        if made.binarizer.learned:
            made.binarizer.threshold.normal_(std=0.5)
        if made.activation is not None:
            for parameter in made.activation.parameters():
                parameter.uniform_(0.1, 1.5)
    return made


def run(made, x, stream, formats):
    """What comes out, all gradients by name, and the statistics; `made` stays as it is."""
    model, x = copy.deepcopy(made), x.clone().requires_grad_()
    shared = x if stream is None else stream.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = model(x, shared, formats)
    torch.manual_seed(11)
    result.backward(torch.randn(result.shape).to(result.dtype))
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return result, dict(grads, x=x.grad, stream=shared.grad), dict(model.named_buffers())


def off(mine, theirs):
    """Relative distance of two tensors; 0 of two that are not there."""
    if mine is None or theirs is None:
        assert mine is theirs
        return 0.0
    return float((mine.float() - theirs.float()).norm() / (theirs.float().norm() + 1e-6))


CASES = [
    (0, dict(), True),
    (1, dict(), False),
    (0, dict(double_residual=True), True),
    (1, dict(double_residual=True, feature_binarizer="rsign", activation="maxout"), True),
    (3, dict(double_residual=True, feature_binarizer="approxsign", activation="rprelu"), True),
    (2, dict(double_residual=True, feature_binarizer="rsign", activation="maxout"), True),
    (2, dict(), True),
    (4, dict(double_residual=True, downsample="avgpool-duplicate", activation="maxout"), True),
    (4, dict(double_residual=True, downsample="conv1x1-8bit"), False),
    (5, dict(double_residual=True, activation="prelu", weight_normalization="libra"), True),
]


@pytest.mark.parametrize("formats", [WIDE, COARSE, None], ids=["wide", "coarse", "none"])
@pytest.mark.parametrize(("place", "repair", "shared"), CASES, ids=str)
def test_it_computes_what_the_parts_do(place, repair, shared, formats, monkeypatch):
    made = layer(place, **repair)
    shape = made.shape
    x = maps(4, shape.in_channels, shape.height, shape.width)
    stream = None if shared else maps(*x.shape)
    formats = formats if shape.shortcut else None
    calls, whole = [], fused.layer
    monkeypatch.setattr(fused, "layer", lambda *a, **k: calls.append(1) or whole(*a, **k))
    mine = run(made, x, stream, formats)
    assert calls
    monkeypatch.setattr(binary_conv, "takes", lambda *a: False)
    theirs = run(made, x, stream, formats)
    assert len(calls) == 1
    # a rounding may fall the other way, and at the limits of the stream so may a gradient
    assert off(mine[0], theirs[0]) < 0.01
    for kind in (1, 2):
        assert mine[kind].keys() == theirs[kind].keys()
        for name, value in mine[kind].items():
            assert off(value, theirs[kind][name]) < 0.1, name


@pytest.mark.parametrize(("place", "repair", "shared"), CASES, ids=str)
def test_evaluated_it_computes_what_the_parts_do(place, repair, shared, monkeypatch):
    made = layer(place, **repair)
    shape = made.shape
    x = maps(4, shape.in_channels, shape.height, shape.width)
    stream = x if shared else maps(*x.shape)
    made.norm.running_mean.normal_(std=3.0)
    made.norm.running_var.uniform_(20.0, 200.0)
    before = copy.deepcopy(made.eval().state_dict())

    def evaluated():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return made(x, stream, WIDE if shape.shortcut else None)

    calls, whole = [], fused.layer
    monkeypatch.setattr(fused, "layer", lambda *a, **k: calls.append(1) or whole(*a, **k))
    mine = evaluated()
    assert calls
    monkeypatch.setattr(binary_conv, "takes", lambda *a: False)
    assert off(mine, evaluated()) < 0.01
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("formats", [WIDE, COARSE])
def test_the_stream_is_whole_steps_within_its_limits(formats):
    made = layer(1, double_residual=True)
    x = maps(4, 16, 32, 32) * 3
    with torch.autocast("cpu", torch.bfloat16):
        result = made(x, x, formats).float()
    steps = result * 2**formats.residual_fraction
    least = 2 ** (formats.residual_width - 1)
    assert float(steps.min()) >= -least and float(steps.max()) <= least
    if formats is COARSE:  # 8 bits: bfloat16 holds each of them
        assert torch.equal(steps, steps.round()) and float(steps.min()) == -least
