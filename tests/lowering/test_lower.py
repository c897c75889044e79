"""Lowered integers: thresholds, formats, errors, and what training methods leave alone."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch

from bnnhw import golden
from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.errors import UserError
from bnnhw.lowering.fixed import sum_threshold
from bnnhw.lowering.lower import lower
from bnnhw.network.repair import BASELINE, CATEGORIES, TRAINING
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn import untrained
from bnnhw.nn.folded import fold_norm
from tests.lowering.test_lower_methods import nchw


@torch.no_grad()
@pytest.mark.parametrize("activation", ["none", "rising", "falling", "either"])
def test_bits_without_a_shortcut_match_every_possible_acc(activation):
    """`either` has channels that nowhere fall beside ones that nowhere rise."""
    kind = "none" if activation == "none" else "rprelu" if activation == "rising" else "maxout"
    repair = Repair("rsign", activation=kind, double_residual=False)
    spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), repair=repair)
    for seed in range(5):
        model = untrained(spec, seed)
        for part in (layer.activation for layer in model.layers() if layer.activation is not None):
            sign = dict(rising=1.0, falling=-1.0).get(activation, (-1.0) ** torch.arange(4))
            for slopes in (part.negative, *([part.positive] if kind == "maxout" else [])):
                slopes.abs_()
                slopes[:4] *= sign
            part.negative[3] = 0
        network = lower(model)
        for place in range(0, 6, 2):
            layer, part = model.convolutions[place], network.convolutions[place]
            level = model.convolutions[place + 1].binarizer.threshold.double().numpy()
            affine = fold_norm("layer", layer.norm)
            fan_in = 9 * layer.shape.in_channels
            acc = np.arange(-fan_in, fan_in + 1)[:, None]
            y = affine.slope * acc + affine.offset
            direction = np.ones(layer.shape.out_channels)
            if layer.activation is not None:
                negative, positive, shift_in, shift_out = (
                    part.double().numpy() for part in layer.activation.numbers()
                )
                y = y - shift_in
                y = np.where(y >= 0, positive, negative) * y + shift_out
                direction = np.where(positive < 0, -1, 1)
            latent = np.where(layer.weight.numpy() >= 0, 1, -1).transpose(0, 2, 3, 1)
            kept = (part.weights == latent).all((1, 2, 3))
            assert np.array_equal(part.weights, np.where(kept[:, None, None, None], 1, -1) * latent)
            assert np.array_equal(kept, affine.slope * direction >= 0)
            assert np.array_equal(np.where(kept, acc, -acc) >= part.threshold, y >= level)


@torch.no_grad()
def test_an_activation_that_rises_and_falls_has_two_thresholds():
    """Bits are those of the real numbers at every sum."""
    repair = Repair("rsign", activation="maxout", double_residual=False)
    spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), repair=repair)
    model = untrained(spec, 1)
    for layer in model.layers():
        negative, positive = layer.activation.slopes()
        negative[1:] = -torch.sign(positive[1:]) * (negative[1:].abs() + 0.1)
        negative[:1].abs_()
        positive[0].abs_()
        layer.binarizer.threshold[:2] = torch.tensor([9.0, -9.0])
    network = lower(model)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    taps = golden.run(network, images, "all")
    for place in range(0, 6, 2):
        layer, part = model.convolutions[place], network.convolutions[place]
        assert part.threshold is None and part.before is not None
        affine = fold_norm("layer", layer.norm)
        y = affine.slope * taps[f"{layer.shape.name}.acc"] + affine.offset
        negative, positive = (part.double().numpy() for part in layer.activation.slopes())
        y = np.where(y >= 0, positive, negative) * y
        level = model.convolutions[place + 1].binarizer.threshold.double().numpy()
        assert np.array_equal(taps[f"{layer.shape.name}.bits"] == 1, y >= level)


def test_thresholds_at_the_edges():
    slope = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 1e-9])
    offset = np.array([1.0, -1.0, 0.0, 18.0, -19.0, 0.25, -1.0])
    got = sum_threshold(lambda acc: slope * acc + offset, np.zeros(7), 18)
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
    network = lower(model, exponents=False)
    assert network.spec.formats.scale_fraction == 6
    assert network.convolutions[2].requantiser.scale[1] == pytest.approx(8 * 2 * 16 * 64, rel=1e-4)
    with torch.no_grad():
        norm.weight[1] = 100.0
    with pytest.raises(UserError, match=r"stage1\.0\.conv1\.scale\[1\]"):
        lower(model, exponents=False)


def test_one_great_channel_does_not_coarsen_the_others():
    model = untrained(NetworkSpec(depth=8, widths=(4, 16, 16), input=(8, 8, 1)))
    before = lower(model)
    norm = model.convolutions[3].norm
    with torch.no_grad():
        norm.weight[1], norm.running_var[1] = 100.0, 1.0
    network = lower(model)
    assert network.spec.formats.scale_fraction >= 10
    part, plain = network.convolutions[3].requantiser, before.convolutions[3].requantiser
    exponents = part.exponent.tolist()
    assert exponents[1] > 0 and not any(exponents[:1] + exponents[2:])
    real = part.scale * 2.0 ** (part.exponent - network.spec.formats.scale_fraction)
    assert real[1] == pytest.approx(100 * 2 * 16, rel=1e-4)
    others = np.arange(16) != 1
    shifted = plain.scale / 2.0**before.spec.formats.scale_fraction
    np.testing.assert_allclose(real[others], shifted[others], atol=2.0**-11)


def test_one_great_channel_of_the_stem_leaves_the_others_fine():
    model = untrained(NetworkSpec(depth=8, widths=(16, 16, 16), input=(8, 8, 1)))
    with torch.no_grad():
        model.stem.norm.weight[2] *= 60
    part = lower(model).stem.requantiser
    others = np.arange(16) != 2
    assert (part.exponent[others] < 0).any()
    assert np.abs(part.scale[others]).min() >= 128
    rough = lower(model, exponents=False).stem.requantiser
    assert np.abs(rough.scale[others]).max() < 256


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("stem.weight", np.nan, r"stem\.weight\[0\]=nan: must be finite"),
        ("stem.norm.running_var", -1.0, r"stem\.norm\.running_var\[0\]=-1\.0: must not be neg"),
        ("convolutions.1.weight", np.inf, r"stage0\.0\.conv2\.weight\[0\]=inf"),
        ("convolutions.0.norm.bias", 1e7, r"stage0\.0\.conv1\.bias\[0\]: folds to"),
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


def test_guard_shrinks_until_wide_numbers_fit():
    repair = Repair(activation="rprelu")
    spec = NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1), repair=repair)
    model = untrained(spec)
    model.head.bias.data.zero_()
    for width in (8, 11, 12, 14):
        formats = lower(model, residual_width=width).spec.formats
        assert width + formats.guard <= 15 and formats.scale_fraction - formats.guard >= 8
    with pytest.raises(UserError, match="residual_width=15: must be less than 15 where a repair"):
        lower(model, residual_width=15)


def arrays(part: object, prefix: str = "") -> dict[str, tuple]:
    """Types and shapes of everything in a network but its spec."""
    if isinstance(part, np.ndarray):
        return {prefix: (part.dtype, part.shape)}
    if isinstance(part, tuple):
        children = {str(at): child for at, child in enumerate(part)}
    elif is_dataclass(part):
        children = {f.name: getattr(part, f.name) for f in fields(part) if f.name != "spec"}
    else:
        return {prefix: (type(part), part if "shape" in prefix else None)}
    return {k: v for n, c in children.items() for k, v in arrays(c, f"{prefix}.{n}").items()}


TRAINING_ONLY = [
    (category.name, value)
    for category in CATEGORIES
    if category.cost == TRAINING
    for value in list(category.values)[1:]
]


@pytest.mark.parametrize(("name", "value"), TRAINING_ONLY)
@pytest.mark.parametrize("double", [False, True])
def test_training_methods_leave_the_structure_as_it_is(name, value, double):
    """Other numbers in the same arrays, and a plan of the same steps, addresses and sizes."""
    networks = []
    for repair in (BASELINE, replace(BASELINE, **{name: value})):
        repair = replace(repair, double_residual=double)
        spec = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), classes=3, repair=repair)
        model = untrained(spec, seed=1)
        model.head.bias.data.zero_()
        networks.append(lower(model))
    plain, changed = networks
    assert arrays(plain) == arrays(changed)
    before, after = (make_plan(network, BOARD) for network in networks)
    assert before.steps == after.steps and before.memory_map == after.memory_map
    assert len(before.image) == len(after.image)
    for key, value in vars(before.parameters).items():
        if key not in ("thresholds", "pre_shift", "shift", "bias_shift"):
            assert getattr(after.parameters, key) == value
