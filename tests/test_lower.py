"""Lowered integers against the float model they come from, one layer at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bnnhw import golden
from bnnhw.errors import UserError
from bnnhw.lower import Affine, bit_threshold, fold_norm, lower
from bnnhw.nn import untrained
from bnnhw.nn.shortcuts import pad_shortcut
from bnnhw.spec import NetworkSpec, NumberFormats, Repair

REPAIRS = [
    Repair(),
    Repair("rsign", True, "zero"),
    Repair("ste", False, "minus-one"),
    Repair("rsign", False, "minus-one"),
]


def nchw(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(dtype)


@pytest.fixture(params=REPAIRS, ids=str, scope="module")
def case(request):
    """(model, network, taps) of a small random network on random images."""
    spec = NetworkSpec(depth=8, widths=(8, 16, 20), input=(9, 12, 2), classes=5,
                       repair=request.param)  # fmt: skip
    model = untrained(spec, seed=4)
    network = lower(model)
    images = np.random.default_rng(0).integers(0, 256, (24, 9, 12, 2), dtype=np.uint8)
    return model, network, golden.run(network, images, "all")


def check_residual(real: torch.Tensor, got: np.ndarray, tolerance: float) -> None:
    """Integers are the real values rounded half up, but for those this close to the half."""
    steps = (real.double() * 16).permute(0, 2, 3, 1).numpy()
    exact = np.clip(np.floor(steps + 0.5), -128, 127)
    far = np.abs(steps + 0.5 - np.round(steps + 0.5)) > tolerance
    assert far.mean() > 0.5
    assert np.array_equal(got[far], exact[far])
    assert np.abs(got - exact).max() <= 1


@torch.no_grad()
def test_every_layer_is_close_to_the_float_layer(case):
    model, network, taps = case
    real = model.stem(model.pixels(nchw(taps["input"])))
    unit = 2.0**-network.spec.formats.scale_fraction
    floored = np.abs(network.stem.requantiser.scale).max() * unit / 2
    rounded = np.abs(taps["stem.acc"] >> network.stem.pre_shift).max() * unit / 2
    check_residual(real, taps["stem.residual"], 0.04 + floored + rounded)
    bits, stream = taps["stem.bits"], taps["stem.residual"]
    for layer in model.convolutions:
        name = layer.shape.name
        binarizer, layer.binarizer = layer.binarizer, nn.Identity()
        real = layer(nchw(bits) * 2 - 1)
        layer.binarizer = binarizer
        bits = taps[f"{name}.bits"]
        if layer.shape.shortcut:
            total = real + pad_shortcut(nchw(stream) / 16, layer.shape)
            check_residual(total, taps[f"{name}.residual"], 0.05)
            stream = taps[f"{name}.residual"]
    logits = model.head(nchw(stream) / 16).numpy()
    unit = model.head.weight.abs().max().item() / 127 / (16 * stream.shape[1] * stream.shape[2])
    bias_step = unit * 2**network.head.bias_shift
    assert np.abs(taps["head.logits"] * unit - logits).max() <= bias_step * 0.51 + 1e-4


@torch.no_grad()
def test_bits_are_those_of_the_next_binarizer(case):
    model, _, taps = case
    layers = list(model.convolutions)
    names = ["stem", *(layer.shape.name for layer in layers)]
    for name, after in zip(names[:-1], layers, strict=True):
        if f"{name}.residual" in taps:
            real = after.binarizer(nchw(taps[f"{name}.residual"]) / 16)
            assert np.array_equal(real.permute(0, 2, 3, 1).numpy() > 0, taps[f"{name}.bits"] == 1)
    last = taps[f"{names[-1]}.residual"]
    assert np.array_equal(last >= 0, taps[f"{names[-1]}.bits"] == 1)


@torch.no_grad()
def test_bits_without_a_shortcut_match_every_possible_acc():
    spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1),
                       repair=Repair("rsign", double_residual=False))  # fmt: skip
    for seed in range(5):
        model = untrained(spec, seed)
        network = lower(model)
        for place in range(0, 6, 2):
            layer, part = model.convolutions[place], network.convolutions[place]
            level = model.convolutions[place + 1].binarizer.threshold.double().numpy()
            affine = fold_norm("layer", layer.norm)
            fan_in = 9 * layer.shape.in_channels
            acc = np.arange(-fan_in, fan_in + 1)[:, None]
            expected = affine.slope * acc + affine.offset >= level
            latent = np.where(layer.weight.numpy() >= 0, 1, -1).transpose(0, 2, 3, 1)
            kept = (part.weights == latent).all((1, 2, 3))
            assert np.array_equal(part.weights, np.where(kept[:, None, None, None], 1, -1) * latent)
            assert np.array_equal(kept, affine.slope >= 0)
            assert np.array_equal(np.where(kept, acc, -acc) >= part.threshold, expected)


def test_thresholds_at_the_edges():
    slope = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 1e-9])
    offset = np.array([1.0, -1.0, 0.0, 18.0, -19.0, 0.25, -1.0])
    got = bit_threshold(Affine(slope, offset), np.zeros(7), 18)
    assert got.tolist() == [-18, 19, 0, -18, 19, 0, 19]


@torch.no_grad()
def test_residual_width_adds_bits_behind_the_point():
    spec = NetworkSpec(depth=8, widths=(8, 16, 20), input=(9, 12, 2), classes=5)
    model = untrained(spec, seed=4)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 9, 12, 2), dtype=np.uint8)
    for width, fraction in ((8, 4), (10, 6), (12, 8)):
        network = lower(model, residual_width=width)
        formats = network.spec.formats
        assert (formats.residual_width, formats.residual_fraction) == (width, fraction)
        stem = golden.run(network, pixels, ["stem.residual"])["stem.residual"] / 2.0**fraction
        real = model.stem(model.pixels(nchw(pixels))).permute(0, 2, 3, 1).numpy()
        assert np.abs(stem - real.clip(-8, 8 - 2.0**-fraction)).max() < 2.0**-fraction + 0.04
    widest = lower(model, residual_width=16).spec.formats
    assert widest.residual_width == 16 and 4 <= widest.residual_fraction <= 12
    with pytest.raises(UserError, match="residual_width=17"):
        lower(model, residual_width=17)
    fine = NumberFormats(residual_width=12, residual_fraction=8)
    narrow = lower(untrained(replace(spec, formats=fine)), residual_width=10).spec.formats
    assert (narrow.residual_width, narrow.residual_fraction) == (10, 6)


def test_scale_fraction_shrinks_for_great_scales():
    model = untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1)))
    assert lower(model).spec.formats.scale_fraction > 6
    norm = model.convolutions[2].norm
    with torch.no_grad():
        norm.weight[1], norm.running_var[1] = 8.0, 1.0
    network = lower(model)
    assert network.spec.formats.scale_fraction == 6
    assert network.convolutions[2].requantiser.scale[1] == pytest.approx(8 * 2 * 16 * 64, rel=1e-4)
    with torch.no_grad():
        norm.weight[1] = 100.0
    with pytest.raises(UserError, match=r"stage1\.0\.conv1\.norm\.weight\[1\]"):
        lower(model)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("stem.weight", np.nan, r"stem\.weight\[0\]=nan: must be finite"),
        ("stem.norm.running_var", -1.0, r"stem\.norm\.running_var\[0\]=-1\.0: must not be neg"),
        ("convolutions.1.weight", np.inf, r"stage0\.0\.conv2\.weight\[0\]=inf"),
        ("convolutions.0.norm.bias", 1e4, r"stage0\.0\.conv1\.norm\.bias\[0\]: folds to"),
        ("convolutions.3.norm.running_mean", np.nan, r"stage1\.0\.conv2\.norm\.running_mean\[0\]"),
        ("head.bias", 1e9, r"head\.bias\[0\]"),
    ],
)
def test_unusable_parameters_name_their_place(place, value, message):
    model = untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1)))
    with torch.no_grad():
        model.state_dict()[place].view(-1)[0] = value
    with pytest.raises(UserError, match=message):
        lower(model)


def test_formats_of_the_spec_are_used():
    formats = NumberFormats(residual_width=12, residual_fraction=7, guard=3)
    spec = NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1), formats=formats)
    network = lower(untrained(spec))
    coarse = lower(untrained(replace(spec, formats=NumberFormats())))
    assert replace(network.spec.formats, scale_fraction=12) == formats
    fine, rough = (
        lowered.convolutions[0].requantiser.scale / 2.0**lowered.spec.formats.scale_fraction
        for lowered in (network, coarse)
    )
    np.testing.assert_allclose(fine, rough * 8, rtol=0.05)
