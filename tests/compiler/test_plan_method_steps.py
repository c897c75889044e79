"""Steps that methods add to a plan, and strips of what the engine cannot hold whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler import layout
from bnnhw.compiler.plan import make_plan
from bnnhw.gateware.program import Kind
from bnnhw.network.spec import NetworkSpec, Repair
from tests.plans import loads_of, network_of, regions, walk_of, words_of


@pytest.mark.parametrize("double", [True, False])
def test_means_go_to_every_channel_of_the_output_and_no_further(double):
    """In words of two channels where they are added to the convolution, else of one."""
    repair = Repair(downsample="avgpool-duplicate", double_residual=double)
    spec = NetworkSpec(depth=8, widths=(16, 18, 34), input=(9, 10, 2), repair=repair)
    plan = make_plan(network_of(spec), BOARD)
    assert plan.parameters.averages and plan.parameters.passes != double
    moves = [step for step in plan.steps if words_of(step)[0].mean]
    suffix = "" if double else ".shortcut"
    assert [step.name for step in moves] == [
        f"stage1.0.conv1{suffix}", f"stage2.0.conv1{suffix}",
    ]  # fmt: skip
    per_word = 2 if double else 1
    for step, inside, out in zip(moves, (16, 18), (18, 34), strict=True):
        geometry, sources, _ = words_of(step)
        assert geometry.single and geometry.wide_out != double and not geometry.in_place
        assert (geometry.shortcut_first, geometry.shortcut_end) == (0, out // per_word)
        assert sources.period == inside // per_word - 1
    others = [words_of(step) for step in plan.steps if step not in moves]
    assert not any(geometry.mean or sources.period for geometry, sources, _ in others)
    plain = replace(spec, repair=Repair(double_residual=double))
    assert not make_plan(network_of(plain), BOARD).parameters.averages


@pytest.mark.parametrize("double", [True, False])
def test_8_bit_shortcuts_move_the_stream_between_stages(double):
    repair = Repair("rsign", downsample="conv1x1-8bit", double_residual=double)
    spec = NetworkSpec(depth=8, widths=(16, 18, 34), input=(9, 10, 2), repair=repair)
    network = network_of(spec)
    plan = make_plan(network, BOARD)
    shortcuts = [conv.shortcut for conv in network.convolutions if conv.shortcut is not None]
    assert plan.parameters.passes
    assert {part.pre_shift for part in shortcuts} == {plan.parameters.shortcut_shift}
    moves = [step for step in plan.steps if step.kind == "pointwise"]
    assert [step.name for step in moves] == ["stage1.0.conv1.shortcut", "stage2.0.conv1.shortcut"]
    stream = words_of(plan.steps[0])[2].residual
    for step, part, size in zip(moves, shortcuts, ((5, 5), (3, 3)), strict=True):
        geometry, sources, sinks = words_of(step)
        out, inputs = (layout.GROUP * layout.groups(count) for count in part.weights.shape)
        assert geometry.kind == Kind.POINTWISE and geometry.single and geometry.wide_out
        assert (geometry.rows, geometry.columns) == (size[0] - 1, size[1] - 1)
        assert (geometry.groups, geometry.folds) == (out // 16 - 1, 0)
        assert not geometry.add and geometry.keep and not geometry.emit
        assert sources.features == stream != sinks.residual
        assert sinks.head_words == inputs - 1
        load = loads_of(plan)[plan.steps.index(step)]
        assert load.words == 3 * max(out, out // 4 * inputs // 2)
        stream = sinks.residual
    plain = make_plan(network_of(replace(spec, repair=Repair(double_residual=double))), BOARD)
    assert plain.parameters.shortcut_shift is None


@pytest.mark.parametrize("double", [True, False])
def test_factors_are_features_of_the_boot_image(double):
    repair = Repair(scaling="spatial", double_residual=double)
    spec = NetworkSpec(depth=6, widths=(16, 34), input=(9, 10, 2), repair=repair)
    network = network_of(spec)
    plan = make_plan(network, BOARD)
    assert plan.parameters.passes and plan.parameters.spatial
    assert len(plan.image) == plan.image_base == regions(plan)["image"].start
    scales = [step for step in plan.steps if step.kind == "scale"]
    shared = []
    for conv, step in zip(network.convolutions, scales, strict=True):
        geometry, sources, sinks = words_of(step)
        assert step.name == conv.shape.name and geometry.spatial and not geometry.single
        height, width = (size + 1 for size in (conv.shape.out_height, conv.shape.out_width))
        assert (geometry.rows, geometry.columns) == (height // 2 - 1, width // 2 - 1)
        words = layout.pack_factors(conv.spatial)
        bytes_ = plan.image[sources.features :][: len(words)] >> np.uint64(8 * sinks.upper)
        assert np.array_equal(bytes_ & np.uint64(0x00FF_00FF_00FF_00FF), words)
        place = next(name for name, place in regions(plan).items() if sources.features in place)
        assert place.startswith("factors ") and sources.features == regions(plan)[place].start
        shared.append((place, sinks.upper))
    assert len(set(shared)) == len(shared) and len({place for place, _ in shared}) == 2
    others = [words_of(step)[0] for step in plan.steps if step not in scales]
    assert not any(geometry.spatial for geometry in others)
    plain = make_plan(network_of(replace(spec, repair=Repair(double_residual=double))), BOARD)
    assert not plain.parameters.spatial and "factors" not in " ".join(regions(plain))


def test_a_thermometer_is_convolved_in_strips_that_the_window_holds():
    """40 columns are 20 blocks of six groups: three strips of 7 and two beside, 9 * 6 <= 64."""
    repair = Repair(stem="thermometer", double_residual=False)
    spec = NetworkSpec(depth=4, widths=(18,), input=(5, 39, 3), repair=repair)
    network = network_of(spec)
    plan = make_plan(network, BOARD)
    stems = plan.steps[:3]
    assert [step.name for step in stems] == ["stem.strip0", "stem.strip1", "stem"]
    assert len(regions(plan)["image"]) == 3 * 20 * 6
    assert plan.parameters.levels == 32 and plan.parameters.strip_gap == (20 - 9) * 6
    assert {(walk_of(step).position, walk_of(step).row) for step in stems} == {(0, (20 - 7) * 2)}
    for step, first in zip(stems, (0, 7, 13), strict=True):
        geometry, sources, sinks = words_of(step)
        assert geometry.kind == Kind.STEM and not geometry.single and not geometry.add
        assert (geometry.columns, geometry.rows, geometry.folds, geometry.groups) == (6, 2, 5, 1)
        assert (geometry.more_left, geometry.more_right) == (first > 0, first < 13)
        assert (geometry.odd_rows, geometry.odd_columns) == (1, first == 13)
        assert sources.features == plan.image_base + (first - 1) * 6
        assert sinks.bits == regions(plan)["bits 0"].start + first * 2
        assert sinks.residual == regions(plan)["residuals 0"].start + first * 16
    assert [step.bits is not None for step in stems] == [False, False, True]
    assert stems[2].bits[0] == "stem.bits" and stems[2].residual[0] == "stem.residual"
    assert stems[2].bits[1].address == regions(plan)["bits 0"].start
    others = [words_of(step)[0] for step in plan.steps[3:]]
    assert not any(g.more_left or g.more_right or g.kind == Kind.STEM for g in others)
    narrow = make_plan(network_of(replace(spec, input=(5, 15, 3))), BOARD)
    assert narrow.parameters.strip_gap is None and narrow.steps[1].name == "stage0.0.conv1"


def test_sums_that_lie_beside_the_stream_are_made_in_strips_where_they_do_not_fit():
    repair = Repair(activation="prelu", activation_position="before-add")
    spec = NetworkSpec(depth=6, widths=(16, 32), input=(13, 8, 2), repair=repair)
    network = network_of(spec)
    whole = make_plan(network, BOARD)
    words = whole.resources[0].used
    plan = make_plan(network, replace(BOARD, memory_words=words - 1))
    assert plan.resources[0].used < words
    assert len(regions(plan)["residuals 1"]) < len(regions(whole)["residuals 1"])
    assert len(plan.image) < len(whole.image) + 4 * 4 * 3  # but the program, nothing twice
    layers = {conv.shape.name for conv in network.convolutions if conv.shape.height == 13}
    for layer in sorted(layers - {"stage1.0.conv1"}):
        terms, scales = (
            [words_of(step) for step in plan.steps if f"{step.name}.".startswith(f"{layer}{name}")]
            for name in (".term0.", ".rows")
        )
        scales += [words_of(step) for step in plan.steps if step.name == layer]
        for strips in (terms, scales):
            assert [step[0].rows for step in strips] == [3, 2]
            assert [(step[0].above, step[0].below) for step in strips] == [(0, 1), (1, 0)]
            assert [step[0].odd_rows for step in strips] == [0, 1]
        sums = regions(plan)["residuals 1"].start
        row, columns = 16 * 4, 4  # words of a row of blocks
        assert [step[2].residual for step in terms] == [sums, sums]
        assert [step[2].operand for step in scales] == [sums, sums]
        assert terms[1][1].features == terms[0][1].features + 3 * columns  # and the row above
        assert scales[1][1].shortcut == scales[0][1].shortcut + 4 * row
        assert scales[1][2].residual == scales[0][2].residual + 4 * row
        assert scales[1][2].bits == scales[0][2].bits + 4 * columns
    named = [step for step in plan.steps if step.name in layers and step.kind == "scale"]
    assert all(step.residual and step.bits for step in named[:-1])
    unnamed = [step for step in plan.steps if ".rows0" in step.name]
    assert unnamed and not any(step.residual or step.bits for step in unnamed)
