"""Plans: where everything lies, what the boot image says, and what the engine has to be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.boards.ulx3s import BOARD as LARGER
from bnnhw.compiler import entries, layout
from bnnhw.compiler.plan import DoesNotFit, make_plan, shapes
from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec, Repair
from tests.plans import SPECS, loads_of, names_of, network_of, regions, size_of, words_of


def test_regions_follow_each_other_inside_the_memory(case):
    _, plan = case
    places = list(regions(plan).values())
    assert places[0].start == 0
    assert all(left.stop <= right.start for left, right in pairwise(places))
    assert places[-1].stop <= BOARD.memory_words
    used = next(part for part in plan.resources if part.name.startswith("memory"))
    assert (used.used, used.available) == (places[-1].stop, BOARD.memory_words)
    assert plan.image_base == regions(plan)["image"].start
    height, width, _ = case[0].spec.input
    assert len(regions(plan)["image"]) == height * width


def test_sums_are_as_wide_as_any_logit(case):
    network, plan = case
    spec, head = network.spec, network.head
    last = spec.convolutions()[-1]
    greatest = (1 << (spec.formats.residual_width - 1)) * last.out_height * last.out_width
    sums = np.abs(head.weights.astype(int)).sum(1) * greatest
    sums += np.abs(head.bias_mantissa.astype(int)) << head.bias_shift
    assert -(1 << (plan.parameters.sum_width - 1)) <= -sums.max()
    assert sums.max() >= 1 << (plan.parameters.sum_width - 2)


def test_the_boot_image_is_the_program_and_the_weights(case):
    network, plan = case
    places = regions(plan)
    assert plan.image.dtype == np.uint64
    assert len(plan.image) == places["weights"].stop
    for index, step in enumerate(plan.steps):
        assert plan.image[1 + 5 * index :][:5].tolist() == list(step.words)
    parts = {conv.shape.name: conv for conv in network.convolutions}
    heads = entries.head_entries(network.head, plan.parameters)
    at = places["weights"].start
    found = set()
    done: dict[str, int] = {}  # channels of a convolution that earlier tiles have
    for step, load in zip(plan.steps, loads_of(plan), strict=True):
        got = plan.image[load.weights :][: load.words]
        if got.tobytes() not in found:  # what steps have in common is there once
            assert load.weights == at
            at += load.words
            found.add(got.tobytes())
        if step.kind == "conv":
            conv = parts[step.name.partition(".channels")[0]]
            part = conv.requantiser or entries.threshold_parameters(
                step.name, conv.threshold, network.spec.formats
            )
            first = done.get(conv.shape.name, 0)
            done[conv.shape.name] = first + 16 * (words_of(step)[0].groups + 1)
            want = entries.convolution_entries(conv.weights, part).reshape(-1, 3)
            folds = words_of(step)[0].folds + 1
            want = want[first * folds : done[conv.shape.name] * folds].reshape(-1)
        elif step.kind == "stem":
            want = entries.stem_entries(network.stem)
        elif step.kind == "head":
            want = heads.pop(0)
        else:
            out = parts[step.name.removesuffix(".shortcut")].shape.out_channels
            want = np.zeros(3 * layout.GROUP * layout.groups(out), np.uint64)
        assert np.array_equal(got, want), step.name
    assert at == places["weights"].stop and not heads


def test_tensors_finds_the_maps_in_memory(case):
    _, plan = case
    memory = np.random.default_rng(0).integers(0, 2**64, BOARD.memory_words, dtype=np.uint64)
    for index, step in enumerate(plan.steps):
        tensors = plan.tensors(index, memory)
        names = [f"{step.name}.{kind}" for kind in ("residual", "bits") if getattr(step, kind)]
        assert not names or ".channels" not in step.name  # there by the last tile
        assert list(tensors) == names
        for kind in ("residual", "bits"):
            if (place := getattr(step, kind)) is not None:
                assert place[0] == f"{step.name}.{kind}"
                assert tensors[place[0]].shape == size_of(place[1])
        if step.bits is not None:  # its first bit is bit 0 of its first word
            name, place = step.bits
            assert tensors[name][0, 0, 0] == memory[place.address] & np.uint64(1)


def test_parameters_follow_the_network():
    parameters = make_plan(network_of(SPECS["every two"]), BOARD).parameters
    assert (parameters.image_height, parameters.image_width, parameters.image_channels) == (9, 8, 1)
    assert parameters.minus_one and parameters.odd_maps
    assert parameters.classes == 2
    parameters = make_plan(network_of(SPECS["digits"]), BOARD).parameters
    assert not parameters.minus_one and not parameters.odd_maps
    for folds in (1, 2, 4, 9):  # half an accumulator is from -72 * folds to 72 * folds
        spec = NetworkSpec(depth=4, widths=(16 * folds,), input=(2, 2, 1), classes=2)
        board = replace(BOARD, memory_words=1 << 20)
        try:
            width = make_plan(network_of(spec), board).parameters.acc_width
        except DoesNotFit as error:
            assert names_of(error) == {"weight buffer"} and folds == 9  # the stem's weights
            continue
        assert -(1 << (width - 1)) <= -72 * folds and 72 * folds < 1 << (width - 1)


@pytest.mark.parametrize("binarizer", ["ste", "rsign"])
def test_thresholds_cost_a_block_ram_where_they_are_needed(binarizer):
    spec = replace(SPECS["digits"], repair=Repair(binarizer))
    network = network_of(spec)
    parts = [network.stem.requantiser, *(conv.requantiser for conv in network.convolutions)]
    needed = any(part.threshold.any() for part in parts)
    plan = make_plan(network, BOARD)
    assert plan.parameters.thresholds == needed
    ram = next(part for part in plan.resources if part.name.startswith("block RAM"))
    assert ram.used == 27 + needed
    assert binarizer == "ste" or needed


def test_the_image_lies_where_it_is_asked_to_but_after_what_comes_before_it(case):
    network, plan = case
    moved = make_plan(network, BOARD, image_base=plan.image_base + 100)
    assert moved.image_base == plan.image_base + 100
    for name, place in regions(plan).items():
        shift = 100 if place.start >= plan.image_base else 0
        assert regions(moved)[name] == range(place.start + shift, place.stop + shift)
    assert moved.parameters == plan.parameters and len(moved.image) == len(plan.image)
    assert make_plan(network, BOARD, image_base=plan.image_base - 1).image_base == plan.image_base


@pytest.mark.parametrize(
    ("widths", "repair", "most"),
    [
        ((16, 32), Repair(), 8),
        ((16, 24), Repair(), 4),  # moved by 4
        ((16, 36), Repair(), 2),  # by 10
        ((16, 32), Repair(downsample="avgpool-duplicate"), 8),
        ((16, 34), Repair(downsample="avgpool-duplicate"), 2),  # means end after 34
        ((18, 36), Repair(downsample="avgpool-duplicate"), 1),
        ((16, 32), Repair(downsample="conv1x1-8bit"), 1),
        ((16, 32), Repair(scaling="spatial"), 1),
    ],
)
def test_channels_in_parallel_where_what_is_added_lies_as_it_leaves_the_array(widths, repair, most):
    network = network_of(NetworkSpec(depth=6, widths=widths, input=(8, 8, 1), repair=repair))
    able = {shape.pe for shape in shapes(network, LARGER)}
    assert able == {pe for pe in (1, 2, 4, 8) if pe <= most}
    with pytest.raises(UserError, match="pe=16: the engine cannot run this network so on ulx3s"):
        make_plan(network, LARGER, pe=16)
