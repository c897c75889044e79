"""Which passes a convolution takes, and how they hand numbers on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnnhw.compiler.passes import (
    GATES,
    HIDDEN,
    SIGNS,
    STREAM,
    SUMS,
    convolution_passes,
    move,
    moves_first,
    needs_passes,
)
from bnnhw.compiler.schedule import Schedule
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn.untrained import untrained
from tests.random_networks import random_network

SPEC = NetworkSpec(depth=6, widths=(4, 6), input=(5, 4, 1))


def network_of(**repair):
    return random_network(replace(SPEC, repair=Repair(**repair)))


def passes_of(name: str, features: int = 1, **repair):
    """(name, kind, operand, adds, keeps, wide out, emits) of each pass."""
    network = network_of(**repair)
    conv = next(conv for conv in network.convolutions if conv.shape.name == name)
    works = convolution_passes(conv, network.spec.formats, moved=False, features=features)
    return [(w.name, w.kind, w.operand, w.adds, w.keeps, w.wide_out, w.emits) for w in works]


def test_a_plain_convolution_is_one_pass():
    assert passes_of("stage0.0.conv1") == [
        ("", "conv", None, STREAM, STREAM, False, 0),
    ]
    assert passes_of("stage0.0.conv1", double_residual=False) == [
        ("", "conv", None, None, None, False, 0),
    ]
    assert passes_of("stage1.0.conv2", features=0)[0][-1] is None


def test_terms_add_to_the_stream_where_nothing_comes_between():
    assert passes_of("stage0.0.conv2", ensemble="weights-3") == [
        ("term0", "conv", None, STREAM, STREAM, True, None),
        ("term1", "conv", None, STREAM, STREAM, True, None),
        ("", "conv", None, STREAM, STREAM, False, 0),
    ]


def test_terms_without_a_shortcut_add_up_beside_the_stream():
    passes = passes_of("stage0.0.conv1", 2, ensemble="features-2", double_residual=False)
    assert passes == [
        ("term0", "conv", None, None, SUMS, True, None),
        ("", "conv", None, SUMS, SUMS, False, 0),
        ("bits1", "bits", None, SUMS, None, False, 1),
    ]


def test_activations_scale_what_the_sums_left():
    assert passes_of("stage0.0.conv1", activation="prelu") == [
        ("term0", "conv", None, STREAM, STREAM, True, None),
        ("", "scale", STREAM, None, STREAM, False, 0),
    ]
    before = dict(activation="prelu", activation_position="before-add")
    assert passes_of("stage0.0.conv1", **before) == [
        ("term0", "conv", None, None, SUMS, True, None),
        ("", "scale", SUMS, STREAM, STREAM, False, 0),
    ]


@pytest.mark.parametrize("position", ["after-add", "before-add"])
def test_the_shift_before_an_activation_is_in_the_bias_before_it(position):
    network = network_of(ensemble="weights-2", activation="rprelu", activation_position=position)
    conv = network.convolutions[1]
    act = conv.after or conv.before
    first, second, last = convolution_passes(conv, network.spec.formats, moved=False, features=1)
    assert not first.part.bias.any()
    assert (second.part.bias == conv.requantiser.bias + act.shift_in).all()
    assert (last.part.bias == act.shift_out).all() and last.act is act


@pytest.mark.parametrize(
    ("repair", "expected"),
    [
        (dict(ensemble="weights-3"), [False, True, True]),
        (dict(ensemble="weights-2", downsample="conv1x1-binary"), [True, True]),
        (dict(ensemble="weights-2", double_residual=False), [False, True]),
        (dict(), [False]),
    ],
)
def test_sums_of_single_pixels_are_added_in_place(repair, expected):
    tasks = Schedule(network_of(**repair)).tasks
    works = [task.work for task in tasks if task.layer == "stage1.0.conv1" and task.work]
    convs = [work for work in works if work.kind == "conv" and not work.centre]
    assert [work.in_place for work in convs] == expected
    assert not any(work.in_place for work in works if work not in convs)


def test_spatial_factors_scale_sums_before_the_bias():
    network = network_of(scaling="spatial", ensemble="weights-2")
    conv = network.convolutions[1]
    first, second, spatial = convolution_passes(conv, network.spec.formats, moved=True, features=1)
    assert not first.part.bias.any() and not second.part.bias.any()
    assert (spatial.part.bias == conv.requantiser.bias).all()
    assert spatial.factors is conv.spatial and spatial.act is None
    assert (spatial.folds, spatial.fetches) == (4, 1)
    assert [work.keeps for work in (first, second, spatial)] == [SUMS, SUMS, STREAM]


def test_spatial_factors_come_before_the_shortcut_and_activations():
    term = ("term0", "conv", None, None, SUMS, True, None)
    assert passes_of("stage0.0.conv1", scaling="spatial") == [
        term,
        ("", "scale", SUMS, STREAM, STREAM, False, 0),
    ]
    assert passes_of("stage0.0.conv1", 2, scaling="spatial", ensemble="features-2",
                     double_residual=False)[2:] == [
        ("", "scale", SUMS, None, SUMS, False, 0),
        ("bits1", "bits", None, SUMS, None, False, 1),
    ]  # fmt: skip
    active = dict(scaling="spatial", activation="prelu")
    assert passes_of("stage0.0.conv1", **active) == [
        term,
        ("spatial", "scale", SUMS, STREAM, STREAM, True, None),
        ("", "scale", STREAM, None, STREAM, False, 0),
    ]
    assert passes_of("stage0.0.conv1", activation_position="before-add", **active) == [
        term,
        ("spatial", "scale", SUMS, None, SUMS, True, None),
        ("", "scale", SUMS, STREAM, STREAM, False, 0),
    ]


@pytest.mark.parametrize(
    ("repair", "expected"),
    [
        (dict(), [False, False]),
        (dict(double_residual=False), [True, False]),
        (dict(downsample="conv1x1-binary"), [True, False]),
        (dict(downsample="avgpool-duplicate"), [False, False]),
        (dict(downsample="avgpool-duplicate", double_residual=False), [True, False]),
        (dict(activation="prelu"), [False, False]),
        (dict(scaling="spatial"), [True, False]),
        (dict(activation="prelu", activation_position="before-add"), [True, False]),
    ],
)
def test_when_the_stream_moves_in_a_pass_of_its_own(repair, expected):
    network = network_of(**repair)
    moves = [moves_first(conv, network.spec.repair) for conv in network.convolutions]
    assert moves == [False, False, *expected]


def test_a_binary_shortcut_is_a_convolution_of_the_middle_tap():
    conv = network_of(downsample="conv1x1-binary").convolutions[2]
    work = move(conv, conv.shortcut, SIGNS)
    assert (work.kind, work.centre, work.strided, work.wide_out) == ("conv", True, True, True)
    assert (work.weights[:, 1, 1] == conv.shortcut.weights).all()
    assert work.feature == SIGNS and work.keeps == STREAM and work.adds is None


def test_means_are_added_where_the_convolution_has_the_shortcuts_stride():
    spec = dict(downsample="avgpool-duplicate", feature_binarizer="rsign", ensemble="weights-2")
    tasks = Schedule(network_of(**spec)).tasks
    first, last = (task.work for task in tasks if task.layer == "stage1.0.conv1")
    assert (first.mean, first.moves, first.adds, first.keeps) == (True, True, STREAM, STREAM)
    assert (last.mean, last.moves, last.in_place) == (False, False, True)
    assert sum(task.work is not None and task.work.mean for task in tasks) == 1


def test_means_are_wide_until_the_convolution_with_the_shortcut():
    tasks = Schedule(network_of(downsample="avgpool-duplicate", double_residual=False)).tasks
    at = [task.name for task in tasks].index("stage1.0.conv1.shortcut")
    shortcut, other, adder = (task.work for task in tasks[at : at + 3])
    assert (shortcut.mean, shortcut.strided, shortcut.adds, shortcut.keeps) == (
        True, True, STREAM, STREAM,
    )  # fmt: skip
    assert shortcut.wide_out and not shortcut.operand
    assert (adder.adds, adder.wide_out, adder.moves) == (STREAM, False, False)
    assert not other.mean and not adder.mean and not adder.in_place
    assert tasks[at].residual != tasks[at].adds


def test_what_needs_passes():
    assert not needs_passes(network_of())
    assert not needs_passes(network_of(feature_binarizer="rsign", scaling="channel-mean"))
    averages = dict(downsample="avgpool-duplicate")
    for repair in (dict(ensemble="features-2"), dict(binary_sets="adabin"),
                   dict(downsample="conv1x1-binary"), dict(scaling="spatial"),
                   dict(activation="prelu", activation_position="before-add"),
                   averages | dict(double_residual=False)):  # fmt: skip
        assert needs_passes(network_of(**repair)), repair
    for repair in (averages, dict(activation="maxout"), averages | dict(activation="rprelu")):
        assert not needs_passes(network_of(**repair)), repair
    assert needs_passes(network_of(activation="maxout"), slopes=False)
    assert not needs_passes(network_of(**averages), slopes=False)
    stage = replace(SPEC, depth=4, widths=(4,), repair=Repair(downsample="avgpool-duplicate"))
    assert not needs_passes(random_network(stage))  # nothing is moved


def test_signs_are_compared_where_bits_have_other_thresholds():
    rsign = Schedule(network_of(feature_binarizer="rsign", downsample="conv1x1-binary"))
    names = [task.name for task in rsign.tasks]
    at = names.index("stage1.0.conv1.signs")
    signs, shortcut, conv = rsign.tasks[at : at + 3]
    assert shortcut.name == "stage1.0.conv1.shortcut"
    assert shortcut.features == signs.bits == "signs"
    assert conv.features.startswith("bits") and conv.features != signs.bits
    spec = replace(SPEC, repair=Repair(downsample="conv1x1-binary"))
    plain = Schedule(lower(untrained(spec)))  # its thresholds are zero
    assert "stage1.0.conv1.signs" not in [task.name for task in plain.tasks]


def test_every_feature_has_a_map_of_its_own():
    schedule = Schedule(network_of(ensemble="features-3"))
    written: dict[str, str] = {}
    for task in schedule.tasks:
        if task.work and task.work.kind == "conv":
            at = task.work.feature
            assert written[task.features].endswith(f".bits{at}" if at else "0") or not at
        if task.bits:
            written[task.bits] = task.name
    assert {place for place in schedule.places if place.startswith("bits")} == {
        f"bits {index}" for index in range(6)
    }


def test_gates_are_two_layers_and_a_scale():
    term = ("term0", "conv", None, None, SUMS, True, None)
    layers = [
        ("hidden", "layer", SUMS, None, HIDDEN, True, None),
        ("gate", "layer", HIDDEN, None, GATES, True, None),
    ]
    se = dict(squeeze_excitation="se")
    assert passes_of("stage0.0.conv1", **se) == [
        term, *layers, ("", "scale", SUMS, STREAM, STREAM, False, 0),
    ]  # fmt: skip
    assert passes_of("stage0.0.conv1", activation="prelu", **se) == [
        term, *layers, ("gated", "scale", SUMS, STREAM, STREAM, True, None),
        ("", "scale", STREAM, None, STREAM, False, 0),
    ]  # fmt: skip
    before = dict(activation="prelu", activation_position="before-add", scaling="spatial")
    assert passes_of("stage0.0.conv1", **before, **se) == [
        term, ("spatial", "scale", SUMS, None, SUMS, True, None),
        ("activation", "scale", SUMS, None, SUMS, True, None),
        *layers, ("", "scale", SUMS, STREAM, STREAM, False, 0),
    ]  # fmt: skip
    assert "layer" not in {kind for _, kind, *_ in
                           passes_of("stage0.0.conv1", double_residual=False, **se)}  # fmt: skip


def test_a_gates_rounding_is_added_with_the_stream():
    network = network_of(squeeze_excitation="se")
    bias = list(convolution_passes(network.convolutions[0], network.spec.formats, moved=False,
                                   features=1))[-1].part.bias  # fmt: skip
    assert (bias == 1 << (network.spec.formats.guard - 1)).all()
    network = network_of(squeeze_excitation="se", activation="rprelu")
    conv = network.convolutions[0]
    passes = list(convolution_passes(conv, network.spec.formats, moved=False, features=1))
    assert (passes[0].part.bias == conv.requantiser.bias).all()
    assert (passes[3].part.bias == conv.after.shift_in).all()


def test_what_lies_beside_single_pixels_is_cleared_before_it_is_added_up():
    """An odd map of a convolution with stride, of which the last step before the gate left it."""

    def names(name, **repair):
        return [name for name, *_ in passes_of(name, squeeze_excitation="se", **repair)]

    assert names("stage1.0.conv1") == ["term0", "edges", "hidden", "gate", ""]
    assert names("stage1.0.conv2") == ["term0", "hidden", "gate", ""]
    assert "edges" not in names("stage1.0.conv1", scaling="spatial")
    assert "edges" in names("stage1.0.conv1", activation="prelu")


def test_lanes_with_slopes_activate_in_the_pass_that_convolves():
    network = network_of(activation="rprelu", downsample="avgpool-duplicate")
    conv = network.convolutions[1]
    (only,) = convolution_passes(
        conv, network.spec.formats, moved=False, features=1, slopes=True
    )  # fmt: skip
    assert (only.name, only.kind, only.act, only.wide_out) == ("", "conv", conv.after, False)
    assert (only.part.bias == conv.requantiser.bias + conv.after.shift_in).all()
    schedule = Schedule(network)
    assert not schedule.passes and schedule.width == 8 and schedule.slopes is not None
    assert [task.name for task in schedule.tasks] == [
        "stem", *(conv.shape.name for conv in network.convolutions), "head",
    ]  # fmt: skip
    passes = Schedule(network, slopes=False)
    assert passes.passes and passes.slopes is None
    assert sum(task.work is not None and task.work.kind == "scale" for task in passes.tasks) == 4
