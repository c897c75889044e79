"""The float model: shapes, shortcuts, padding and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn import BinaryResNet, untrained
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.shortcuts import pad_shortcut
from bnnhw.training.trainer import recalibrate
from tests.nn.repairs import REPAIRS, name

PLAIN = {
    "stem.weight", "head.weight", "head.bias",
    *(f"convolutions.{n}.weight" for n in range(6)),
    *(f"{layer}.norm.{part}"
      for layer in ("stem", *(f"convolutions.{n}" for n in range(6)))
      for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
}  # fmt: skip


def small(repair: Repair) -> NetworkSpec:
    return NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 11, 2), classes=5, repair=repair)


def test_networks_without_methods_keep_the_names_in_their_files():
    for repair in (Repair(), Repair("ede", weight_binarizer="recu", padding="minus-one")):
        assert set(BinaryResNet(small(repair)).state_dict()) == PLAIN
    thresholds = {f"convolutions.{n}.binarizer.threshold" for n in range(6)}
    assert set(BinaryResNet(small(Repair("rsign"))).state_dict()) == PLAIN | thresholds


@pytest.mark.parametrize("repair", REPAIRS, ids=name)
def test_every_parameter_learns(repair):
    model = untrained(small(repair)).train()
    generator = torch.Generator().manual_seed(0)
    logits = model(torch.randint(0, 256, (8, 2, 9, 11), dtype=torch.uint8, generator=generator))
    assert logits.shape == (8, 5) and logits.dtype == torch.float32
    logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("repair", REPAIRS, ids=name)
def test_new_networks_start_within_the_range_of_the_stream(repair):
    torch.manual_seed(0)
    model = BinaryResNet(small(repair)).train()
    _, streams = model.stages(torch.randint(0, 256, (8, 2, 9, 11), dtype=torch.uint8))
    for stream in streams:
        assert 0.1 < stream.std() < 4 and stream.abs().max() <= 8


@torch.no_grad()
def test_each_stage_rounds_to_its_own_point():
    points = (2, 5, 3)
    spec = replace(small(Repair()), formats=NumberFormats(residual_fractions=points))
    _, streams = untrained(spec).stages(torch.randint(0, 256, (4, 2, 9, 11), dtype=torch.uint8))
    for stream, point in zip(streams, points, strict=True):
        steps = stream * 2.0**point
        assert torch.equal(steps, steps.round()) and (steps % 2).any()
        assert -128 <= steps.min() and steps.max() <= 127


@torch.no_grad()
@pytest.mark.parametrize("double", [False, True])
def test_stages_end_with_the_stream_and_its_logits(double):
    model = untrained(small(Repair(double_residual=double, activation="maxout")))
    pixels = torch.randint(0, 256, (4, 2, 9, 11), dtype=torch.uint8)
    logits, streams = model.stages(pixels)
    assert [tuple(s.shape[1:]) for s in streams] == [(4, 9, 11), (6, 5, 6), (10, 3, 3)]
    assert torch.equal(logits, model(pixels))
    assert torch.equal(logits, model.head(streams[-1]))
    assert torch.equal(streams[0] * 16, (streams[0] * 16).round())


@torch.no_grad()
def test_the_schedule_reaches_every_binarizer():
    spec = small(Repair("ede", downsample="conv1x1-binary", stem="thermometer"))
    model = untrained(spec)
    heard = []
    for key, part in model.named_modules():
        if part is not model and hasattr(part, "anneal"):
            part.anneal = lambda done, key=key: heard.append((key, done))
    model.anneal(0.25)
    names = {key for key, done in heard if done == 0.25}
    assert len(heard) == len(names)
    parts = ["stem.weight_binarizer", "convolutions.2.shortcut.binarizer"]
    parts += ["convolutions.0.binarizer.sign", "convolutions.5.weight_binarizer"]
    assert names.issuperset(parts)


def test_latent_weights_are_those_behind_binary_ones():
    spec = small(Repair(downsample="conv1x1-binary", stem="thermometer", ensemble="weights-2"))
    model = BinaryResNet(spec)
    names = {id(p): key for key, p in model.named_parameters()}
    found = {names[id(p)] for p in model.latent_weights()}
    assert found == {"stem.weight", "convolutions.2.shortcut.weight",
                     "convolutions.4.shortcut.weight",
                     *(f"convolutions.{n}.weight" for n in range(6))}  # fmt: skip
    assert len(BinaryResNet(small(Repair(downsample="conv1x1-8bit"))).latent_weights()) == 6


def test_pad_shortcut_places_channels_as_the_spec_says():
    shape = NetworkSpec(depth=6, widths=(16, 36), input=(6, 6, 1)).convolutions()[2]
    stream = torch.arange(1.0, 16 * 36 + 1).reshape(1, 16, 6, 6)
    got = pad_shortcut(stream, shape)
    assert got.shape == (1, 36, 3, 3) and shape.shortcut_offset == 10
    assert torch.equal(got[:, 10:26], stream[:, :, ::2, ::2])
    assert not got[:, :10].any() and not got[:, 26:].any()


@torch.no_grad()
@pytest.mark.parametrize(("padding", "corner"), [("zero", 4 * 2), ("minus-one", 4 * 2 - 5 * 2)])
def test_padding_counts_as_defined(padding, corner):
    spec = NetworkSpec(depth=4, widths=(2,), input=(5, 5, 1), repair=Repair(padding=padding))
    layer = BinaryConvolution(spec.convolutions()[0], spec).eval()
    layer.weight.fill_(0.1)
    layer.norm.weight.fill_((1 + layer.norm.eps) ** 0.5)
    out = layer(torch.ones(1, 2, 5, 5))
    assert out[0, :, 2, 2].tolist() == pytest.approx([18, 18])
    assert out[0, :, 0, 0].tolist() == pytest.approx([corner, corner])


@torch.no_grad()
def test_untrained_networks_are_reproducible_and_varied():
    spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), repair=Repair("rsign"))
    first, again, other = (untrained(spec, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    norms = [name for name in first if name.endswith("norm.weight")]
    assert any((first[name] < 0).any() for name in norms)
    assert all((first[name] > 0).all() for name in first if name.endswith("running_var"))
    thresholds = [first[name] for name in first if name.endswith("binarizer.threshold")]
    assert len(thresholds) == 6 and all(tensor.abs().max() > 0 for tensor in thresholds)


@torch.no_grad()
def test_bfloat16_training_sees_the_same_network():
    spec = NetworkSpec(depth=8, widths=(8, 8, 8), input=(8, 8, 1), classes=4)
    model = untrained(spec)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), np.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(pixels)
    correlation = torch.corrcoef(torch.stack([rough.flatten(), model(pixels).flatten()]))[0, 1]
    assert correlation > 0.7


def test_recalibrated_statistics_are_the_plain_mean_over_all_images():
    model = untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1)), seed=3)
    norm = next(part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d))
    pixels = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    inputs = []
    hook = norm.register_forward_hook(lambda part, given, result: inputs.append(given[0]))
    recalibrate(model, pixels)
    hook.remove()
    means = torch.stack([batch.mean((0, 2, 3)) for batch in inputs])
    assert sum(map(len, inputs)) == 300 and not model.training
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-4)
    assert norm.momentum == 0.1
