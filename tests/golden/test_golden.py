"""The golden model against plain loops over Python integers, and its interface."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from bnnhw import golden
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.repair import CATEGORIES
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn import untrained
from tests.golden.naive import Naive
from tests.layer_lists import MIXED
from tests.random_networks import random_network

METHODS = {
    "thresholds": Repair("rsign"),
    "single": Repair("rsign", double_residual=False),
    "minus-one": Repair(padding="minus-one"),
    "adabin": Repair(binary_sets="adabin"),
    "adabin single": Repair(binary_sets="adabin", double_residual=False),
    "spatial": Repair(scaling="spatial"),
    "spatial single": Repair(scaling="spatial", double_residual=False),
    "weights-2": Repair(ensemble="weights-2", padding="minus-one"),
    "weights-3": Repair(ensemble="weights-3", double_residual=False),
    "features-2": Repair(ensemble="features-2"),
    "features-3": Repair(ensemble="features-3", double_residual=False),
    "group-2": Repair(ensemble="group-2"),
    "after-add": Repair(activation="rprelu"),
    "after-add single": Repair(activation="rprelu", double_residual=False),
    "before-add": Repair(activation="maxout", activation_position="before-add"),
    "gates": Repair(squeeze_excitation="se"),
    "gates, before-add": Repair(
        squeeze_excitation="se", activation="prelu", activation_position="before-add"
    ),
    "gates, after-add": Repair(squeeze_excitation="se", activation="prelu"),
    "averages": Repair(downsample="avgpool-duplicate"),
    "averages single": Repair(downsample="avgpool-duplicate", double_residual=False),
    "binary shortcut": Repair(downsample="conv1x1-binary"),
    "8-bit shortcut": Repair(downsample="conv1x1-8bit", double_residual=False),
    "thermometer": Repair(stem="thermometer", padding="minus-one"),
    "all": Repair(
        "rsign", False, ensemble="features-2", scaling="spatial", activation="rprelu",
        squeeze_excitation="se", downsample="conv1x1-8bit", stem="thermometer",
    ),
}  # fmt: skip


def check_against_loops(network: IntegerNetwork, images: np.ndarray) -> None:
    taps = golden.run(network, images, "all")
    assert tuple(taps) == golden.tap_names(network.spec)
    for at, image in enumerate(images):
        expected = Naive(network, image).taps
        assert tuple(expected) == tuple(taps)
        for name, tensor in expected.items():
            assert np.array_equal(taps[name][at], tensor), name


@pytest.mark.parametrize("method", METHODS)
def test_every_method_equals_the_definition(method):
    shape = (5, 7, 1)
    spec = NetworkSpec(depth=6, widths=(4, 6), input=shape, classes=3, repair=METHODS[method])
    images = np.random.default_rng(2).integers(0, 256, (1, *shape), dtype=np.uint8)
    for seed, loud in enumerate((1.0, 30.0)):
        check_against_loops(random_network(spec, seed, loud, two_sided=0.5), images)


@pytest.mark.parametrize("seed", range(24))
def test_random_combinations_equal_the_definition(seed):
    rng = np.random.default_rng(seed)
    repair = None
    while repair is None:
        with suppress(UserError):
            repair = Repair(**{
                category.name: list(category.values)[rng.integers(len(category.values))]
                for category in CATEGORIES
            })  # fmt: skip
    width, guard = int(rng.integers(8, 13)), int(rng.integers(1, 4))
    fraction = int(rng.integers(guard + 8, 15))
    points = tuple(map(int, rng.integers(2, 6, 2))) if seed % 2 else ()
    formats = NumberFormats(width, int(rng.integers(2, 6)), fraction, guard, points)
    shape = (int(rng.integers(4, 7)), int(rng.integers(4, 7)), 2)
    zero = repair.binary_sets == "adabin" and repair.scaling != "spatial" and seed % 2
    spec = NetworkSpec(
        depth=6, widths=(4, 10), input=shape, classes=3, repair=repair, formats=formats,
        pad=(5, 130) if seed % 4 == 1 else (),
        levels=(7, 90, 91, 200) if repair.stem == "thermometer" and seed % 2 else (),
        stem_activation=("none", "prelu", "maxout")[seed % 3],
        adabin_padding="zero" if zero else "centre",
    )  # fmt: skip
    images = rng.integers(0, 256, (1, *shape), dtype=np.uint8)
    check_against_loops(random_network(spec, seed, two_sided=0.5, exponents=seed % 3 == 0), images)


@pytest.mark.parametrize("seed", range(4))
def test_layers_of_their_own_methods_equal_the_definition(seed):
    network = random_network(MIXED, seed, two_sided=0.5, exponents=seed > 1)
    images = np.random.default_rng(seed).integers(0, 256, (1, *MIXED.input), dtype=np.uint8)
    check_against_loops(network, images)
    assert network.convolutions[3].border is not None and network.convolutions[2].border is None


def test_random_methods_exercise_both_bits_both_slopes_and_gates():
    repair = replace(METHODS["all"], double_residual=True)
    spec = NetworkSpec(depth=8, widths=(16, 16, 32), input=(12, 12, 1), repair=repair)
    network = random_network(spec)
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 1), dtype=np.uint8)
    taps = golden.run(network, images, "all")
    for name, tensor in taps.items():
        if ".bits" in name:
            assert 0.1 < tensor.mean() < 0.9, name
        if name.endswith(".residual"):
            assert tensor.std() > 5 and (np.abs(tensor) >= 127).mean() < 0.2, name
        if name.endswith(".gate"):
            assert len(np.unique(tensor)) > 8, name


@pytest.mark.parametrize("padding", ["zero", "minus-one"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(9, 7, 2), (8, 8, 1)])
def test_every_tensor_equals_the_definition(padding, double, shape):
    spec = NetworkSpec(depth=6, widths=(2, 6), input=shape, classes=3,
                       repair=Repair("rsign", double, padding))  # fmt: skip
    network = lower(untrained(spec, seed=7))
    images = np.random.default_rng(1).integers(0, 256, (2, *shape), dtype=np.uint8)
    images[1] = np.array([0, 255], np.uint8)[np.indices(shape).sum(0) % 2]
    check_against_loops(network, images)


def test_random_networks_exercise_both_bits_and_saturation():
    spec = NetworkSpec(depth=14, widths=(16, 32, 48), input=(24, 24, 1), classes=7)
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 1), dtype=np.uint8)
    taps = golden.run(lower(untrained(spec, 1)), images, "all")
    for name, tensor in taps.items():
        if name.endswith(".bits"):
            assert 0.2 < tensor.mean() < 0.8, name
        if name.endswith(".residual"):
            assert tensor.std() > 10 and (np.abs(tensor) >= 127).mean() < 0.05, name
    last = taps["stage2.1.conv2.residual"]
    assert last.min() == -128 and last.max() == 127
    assert len(set(taps["class"].tolist())) > 1


def test_other_formats_equal_the_definition():
    formats = NumberFormats(residual_width=11, residual_fraction=6, scale_fraction=9, guard=2)
    spec = NetworkSpec(depth=6, widths=(16, 32), input=(4, 5, 3), classes=2, formats=formats)
    network = lower(untrained(spec, seed=2))
    assert network.convolutions[2].shape.shortcut_offset == 8
    image = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    check_against_loops(network, image[None])


def test_taps_types_and_batches():
    spec = NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1), classes=3)
    network = lower(untrained(spec))
    images = np.random.default_rng(0).integers(0, 256, (golden.BATCH + 3, 8, 8, 1), dtype=np.uint8)
    seen: list[int] = []
    some = golden.run(network, images, ["stem.acc", "stem.bits"], progress=seen.append)
    assert seen == [golden.BATCH, golden.BATCH + 3]
    assert set(some) == {"stem.acc", "stem.bits", "head.logits", "class"}
    assert {name: tensor.dtype.name for name, tensor in some.items()} == {
        "stem.acc": "int32", "stem.bits": "uint8", "head.logits": "int64", "class": "int64",
    }  # fmt: skip
    assert some["stem.acc"].shape == (golden.BATCH + 3, 8, 8, 4)
    assert np.array_equal(golden.run(network, images[-2:])["head.logits"], some["head.logits"][-2:])


def test_equal_logits_give_the_lowest_class():
    network = lower(untrained(NetworkSpec(depth=4, widths=(2,), input=(4, 4, 1), classes=4)))
    network.head.weights[:] = 0
    network.head.bias_mantissa[:] = [1, 5, 5, 2]
    assert golden.run(network, np.zeros((1, 4, 4, 1), np.uint8))["class"].tolist() == [1]


@pytest.mark.parametrize(
    ("images", "taps", "message"),
    [
        (np.zeros((1, 8, 9, 1), np.uint8), None, r"needs uint8 \(N, 8, 8, 1\)"),
        (np.zeros((1, 8, 8, 1), np.float32), None, "has float32"),
        (np.zeros((0, 8, 8, 1), np.uint8), None, "there are none"),
        (np.zeros((1, 8, 8, 1), np.uint8), ["stem.sum"], "no such tensor; choose from input"),
    ],
)
def test_wrong_use_is_explained(images, taps, message):
    network = lower(untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1))))
    with pytest.raises(UserError, match=message):
        golden.run(network, images, taps)


def test_speed_allows_whole_test_sets():
    network = lower(untrained(NetworkSpec()))
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    golden.run(network, images[:8])
    started = time.process_time()
    golden.run(network, images)
    assert time.process_time() - started < 3.6  # CPU seconds: 10,000 images in 3 minutes on 2 cores
