"""Activations, gates, shortcuts, thresholds and stems against their definitions."""

from __future__ import annotations

import pytest
import torch

from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, thermometer_levels
from bnnhw.nn.activations import Activation
from bnnhw.nn.features import FeatureBinarizer
from bnnhw.nn.gates import Gate
from bnnhw.nn.quantisers import PixelScaling
from bnnhw.nn.shortcuts import BinaryShortcut, ByteShortcut, average_shortcut, shortcut
from bnnhw.nn.stems import LEVELS, Stem, ThermometerStem, stem


def per_channel(*columns: list[float]) -> torch.Tensor:
    """One column per channel -> (B, C, 1, 1)."""
    return torch.tensor(columns).T[:, :, None, None]


def fill(parameter: torch.Tensor, *values: float) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(values).reshape(parameter.shape))


def test_activations_start_as_published():
    x = per_channel([-4.0, -0.0, 3.0])
    for kind in ("prelu", "rprelu", "maxout"):
        assert Activation(kind, 1)(x).flatten().tolist() == [-1, 0, 3]


def test_slopes_and_shifts_are_per_channel():
    x = per_channel([-2.0, 0.5, 3.0], [-2.0, 0.5, 3.0])
    prelu = Activation("prelu", 2)
    fill(prelu.negative, 0.5, 0.0)
    assert prelu(x)[:, :, 0, 0].tolist() == [[-1, 0], [0.5, 0.5], [3, 3]]
    maxout = Activation("maxout", 2)
    fill(maxout.negative, 0.5, 2.0)
    fill(maxout.positive, 0.0, 4.0)
    assert maxout(x)[:, :, 0, 0].tolist() == [[-1, -4], [0, 2], [0, 12]]
    rprelu = Activation("rprelu", 2)
    fill(rprelu.negative, 0.5, 0.25)
    fill(rprelu.shift_in, 1.0, -3.0)
    fill(rprelu.shift_out, 0.0, 10.0)
    assert rprelu(x)[:, :, 0, 0].tolist() == [[-1.5, 11], [-0.25, 13.5], [2, 16]]


def test_slopes_are_of_any_sign_and_size():
    x = per_channel([-1.0, 1.0], [-1.0, 1.0])
    maxout = Activation("maxout", 2)
    fill(maxout.negative, -0.5, 100.0)
    fill(maxout.positive, 100.0, -0.5)
    y = maxout(x)[:, :, 0, 0]
    torch.testing.assert_close(y, torch.tensor([[0.5, -100.0], [100.0, -0.5]]))
    folded = maxout.folded()
    assert folded.negative.tolist() == [-0.5, 100] and folded.positive.tolist() == [100, -0.5]


def test_slopes_learn_from_their_own_side():
    x = per_channel([-2.0, -1.0, 3.0]).requires_grad_()
    maxout = Activation("maxout", 1)
    maxout(x).backward(per_channel([10.0, 100.0, 1000.0]))
    assert maxout.negative.grad.tolist() == [-120] and maxout.positive.grad.tolist() == [3000]
    assert x.grad.flatten().tolist() == [2.5, 25, 1000]


def test_gates_are_those_of_the_means():
    gate = Gate(2)
    assert gate.reduce.weight.shape == (2, 2) and Gate(64).reduce.weight.shape == (16, 64)
    fill(gate.reduce.weight, 1, 0, 0, 1)
    fill(gate.reduce.bias, 1, 0)
    fill(gate.expand.weight, 1, 5, 0, -2)
    fill(gate.expand.bias, -0.5, 0)
    y = torch.stack([torch.full((1, 2, 3), 1.0), torch.arange(-3.0, 3).reshape(1, 2, 3)], 1)
    # means 1 and -0.5; hidden 2 and 0; z = 1.5 and 0; gates 0.75 and 0.5
    torch.testing.assert_close(gate(y), y * torch.tensor([0.75, 0.5])[:, None, None])
    fill(gate.expand.bias, 1.0, -3.0)  # z = 3 and -3: wide open and shut
    torch.testing.assert_close(gate(y), y * torch.tensor([1.0, 0.0])[:, None, None])


def shape(downsample: str = "pad", widths: tuple[int, int] = (4, 10)):
    spec = NetworkSpec(depth=6, widths=widths, input=(8, 9, 1),
                       repair=Repair(downsample=downsample))  # fmt: skip
    return spec.convolutions()[2], spec.repair


def test_means_repeat_the_edge_and_the_channels():
    stream = torch.arange(4 * 8 * 9.0).reshape(1, 4, 8, 9)
    got = average_shortcut(stream, shape()[0])
    assert got.shape == (1, 10, 4, 5)
    first = [0, 1, 9, 10]
    assert got[0, 0, 0, 0] == sum(first) / 4
    assert got[0, 0, 0, 4] == (8 + 17) / 2  # the last column twice
    assert all(torch.equal(got[:, c], got[:, c % 4]) for c in range(10))
    tall = average_shortcut(stream.transpose(2, 3), shape()[0])
    assert torch.equal(tall, got.transpose(2, 3))


@torch.no_grad()
def test_binary_shortcut_counts_the_signs_of_every_other_pixel():
    part = shortcut(*shape("conv1x1-binary")).eval()
    assert isinstance(part, BinaryShortcut)
    part.weight.fill_(0.1)
    part.weight[0, 1:] = -0.1
    part.norm.weight.fill_((1 + part.norm.eps) ** 0.5)
    stream = torch.full((1, 4, 8, 9), 7.0)
    stream[:, :, ::2, ::2] = torch.tensor([0.0, -0.25, 3.0, 4.0])[:, None, None]
    got = part(stream)
    assert got.shape == (1, 10, 4, 5)
    assert (got[0, 0] - 0).abs().max() < 1e-5  # 1 + 1 - 1 - 1
    assert (got[0, 1:] - 2).abs().max() < 1e-5  # 1 - 1 + 1 + 1


@torch.no_grad()
def test_byte_shortcut_weighs_every_other_pixel():
    part = shortcut(*shape("conv1x1-8bit")).eval()
    assert isinstance(part, ByteShortcut)
    part.weight[:] = torch.tensor([127.0, 0.4, -63.6, 2.0])[:, None, None] / 64
    part.norm.weight.fill_((1 + part.norm.eps) ** 0.5)
    stream = torch.randn(1, 4, 8, 9)
    kept = stream[:, :, ::2, ::2]
    expected = (127 * kept[:, 0] - 64 * kept[:, 2] + 2 * kept[:, 3]) / 64
    torch.testing.assert_close(part(stream), expected[:, None].expand(-1, 10, -1, -1))
    folded = part.folded("here")
    assert folded.weights.tolist() == [[127, 0, -64, 2]] * 10 and not folded.binary


@pytest.mark.parametrize("downsample", ["pad", "avgpool-duplicate", "conv1x1-binary"])
def test_a_shortcut_of_the_same_shape_is_the_stream_itself(downsample):
    spec = NetworkSpec(depth=6, widths=(4, 4), input=(8, 8, 1),
                       repair=Repair(downsample=downsample))  # fmt: skip
    stream = torch.randn(1, 4, 8, 8)
    same, halved = spec.convolutions()[1:3]
    assert torch.equal(shortcut(same, spec.repair)(stream), stream)
    assert shortcut(halved, spec.repair)(stream).shape == (1, 4, 4, 4)


@pytest.mark.parametrize(
    ("ensemble", "start"),
    [("features-2", [-0.5, 0.5]), ("features-3", [-1, 0, 1]), ("group-2", [-0.5, 0.5])],
)
def test_several_thresholds_start_around_zero(ensemble, start):
    binarizer = FeatureBinarizer(Repair(ensemble=ensemble), 2)
    assert binarizer.thresholds().tolist() == [[level, level] for level in start]
    fill(binarizer.threshold[-1], 2.0, -2.0)
    x = per_channel([3.0, 2.0, 1.9], [0.0, -2.0, -2.1])
    assert binarizer(x)[-1][:, :, 0, 0].tolist() == [[1, 1], [1, 1], [-1, -1]]
    below = [[1 if value >= start[0] else -1 for value in row] for row in x[:, :, 0, 0].tolist()]
    assert binarizer(x)[0][:, :, 0, 0].tolist() == below


def test_rsign_learns_a_threshold_per_channel_and_ste_none():
    rsign = FeatureBinarizer(Repair("rsign"), 2)
    assert [name for name, _ in rsign.named_parameters()] == ["threshold"]
    fill(rsign.threshold, 0.5, -2.0)
    (y,) = rsign(per_channel([0.5, 0.25, 1.5, 0.0], [-2.0, -2.25, -1.5, 3.0]))
    assert y[:, :, 0, 0].tolist() == [[1, 1], [-1, -1], [1, 1], [-1, 1]]
    y.sum().backward()
    # -(2 - 2 distance) of distances 0, 1/4, 1, 1/2 and 0, 1/4, 1/2, 5
    assert rsign.threshold.grad.tolist() == [-4.5, -4.5]
    plain = FeatureBinarizer(Repair(), 2)
    assert not list(plain.parameters()) and plain.thresholds().tolist() == [[0, 0]]


def test_adabin_signs_about_a_learned_centre():
    binarizer = FeatureBinarizer(Repair(binary_sets="adabin"), 1)
    fill(binarizer.centre, 0.25)
    fill(binarizer.distance, -2.0)
    x = per_channel([0.25, 0.24, 2.2, 2.3]).requires_grad_()
    (y,) = binarizer(x)
    assert y.flatten().tolist() == [1, -1, 1, 1]
    y.sum().backward()  # the gradient is that of sign((x - centre) / 2)
    assert x.grad.flatten().tolist() == [0.5, 0.5, 0.5, 0]
    assert binarizer.centre.grad == -1.5


def test_thermometer_levels_cut_bytes_in_equal_parts():
    levels = thermometer_levels(LEVELS)
    assert len(levels) == 32 and levels[:3] == [8, 16, 23] and levels[-2:] == [240, 248]
    steps = {after - before for before, after in zip(levels, levels[1:], strict=False)}
    assert steps == {7, 8}


@torch.no_grad()
@pytest.mark.parametrize(("padding", "outside"), [("zero", 0), ("minus-one", -1)])
def test_thermometer_stem_counts_the_levels_reached(padding, outside):
    spec = NetworkSpec(depth=4, widths=(2,), input=(4, 4, 2),
                       repair=Repair(stem="thermometer", padding=padding))  # fmt: skip
    part = stem(spec).eval()
    assert isinstance(part, ThermometerStem)
    part.weight.fill_(0.1)
    part.weight[1, 32:] = -0.1  # the second colour
    part.norm.weight.fill_((1 + part.norm.eps) ** 0.5)
    pixels = torch.stack([torch.full((4, 4), 16), torch.full((4, 4), 248)])[None].byte()
    got = part(PixelScaling()(pixels))
    dark, bright = 2 * 2 - 32, 32  # sums over a pixel's levels
    rim = outside * 32
    inside = [9 * (dark + bright), 9 * (dark - bright)]
    assert got[0, :, 1, 1].tolist() == pytest.approx(inside)
    corner = [4 * (dark + bright) + 5 * 2 * rim, 4 * (dark - bright)]
    assert got[0, :, 0, 0].tolist() == pytest.approx(corner)


def test_the_spec_chooses_the_stem():
    assert isinstance(stem(NetworkSpec()), Stem)
    assert stem(NetworkSpec(repair=Repair(stem="thermometer"))).weight.shape == (16, 96, 3, 3)
