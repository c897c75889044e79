"""Plans: where everything lies, what the program says, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bnnhw import entries, layout
from bnnhw.errors import UserError
from bnnhw.integer import IntegerNetwork
from bnnhw.lower import lower
from bnnhw.nn import untrained
from bnnhw.plan import DoesNotFit, Plan, Step, make_plan
from bnnhw.spec import NetworkSpec, NumberFormats, Repair
from boards.icebreaker import BOARD
from boards.ulx3s import BOARD as LARGER
from gateware.program import Geometry, Kind, Sinks, Sources

WIDE = NumberFormats(residual_width=12, residual_fraction=6)
SPECS = {
    "digits": NetworkSpec(depth=8, widths=(16, 32, 48), input=(8, 8, 1)),
    "cifar": NetworkSpec(depth=20, widths=(16, 32, 64), input=(32, 32, 3)),
    "odd": NetworkSpec(depth=10, widths=(16, 24), input=(7, 5, 2), classes=5),
    "wide stream": NetworkSpec(depth=6, widths=(16, 32), input=(8, 6, 3), formats=WIDE),
    "every two": NetworkSpec(depth=10, widths=(6, 32), input=(9, 8, 1), classes=2,
                             repair=Repair("ste", False, "minus-one")),
    "many classes": NetworkSpec(depth=6, widths=(16, 32), input=(4, 4, 1), classes=60),
}  # fmt: skip


def network_of(spec: NetworkSpec) -> IntegerNetwork:
    model = untrained(spec)
    model.head.bias.data.zero_()  # so that it fits beside the weights of any map
    return lower(model)


@pytest.fixture(params=SPECS, scope="module")
def case(request) -> tuple[IntegerNetwork, Plan]:
    network = network_of(SPECS[request.param])
    return network, make_plan(network, BOARD)


def words_of(step: Step) -> tuple:
    """A step's descriptor, read as the engine does."""
    kinds = zip((Geometry, Sources, Sinks), step.words, strict=True)
    return tuple(kind.from_bits(word) for kind, word in kinds)


def regions(plan: Plan) -> dict[str, range]:
    return {name: range(start, start + size) for name, start, size in plan.memory_map}


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
        assert plan.image[3 * index : 3 * index + 3].tolist() == list(step.words)
    parts = {conv.shape.name: conv for conv in network.convolutions}
    heads = entries.head_entries(network.head, plan.parameters.weight_depth)
    at = places["weights"].start
    found = set()
    for step in plan.steps:
        sources = words_of(step)[1]
        got = plan.image[sources.weights :][: sources.weight_words]
        if got.tobytes() not in found:  # what steps have in common is there once
            assert sources.weights == at
            at += sources.weight_words
            found.add(got.tobytes())
        if step.kind == "conv":
            conv = parts[step.name]
            part = conv.requantiser or entries.threshold_parameters(
                step.name, conv.threshold, network.spec.formats
            )
            want = entries.convolution_entries(conv.weights, part)
        elif step.kind == "stem":
            want = entries.stem_entries(network.stem)
        elif step.kind == "head":
            want = heads.pop(0)
        else:
            out = parts[step.name.removesuffix(".shortcut")].shape.out_channels
            want = np.zeros(3 * layout.GROUP * layout.groups(out), np.uint64)
        assert np.array_equal(got, want), step.name
    assert at == places["weights"].stop and not heads


def test_steps_are_the_layers_and_the_moves_between_stages(case):
    network, plan = case
    expected = [("stem", "stem")]
    for conv in network.convolutions:
        shape = conv.shape
        if not shape.shortcut and (shape.stride, shape.in_channels) != (1, shape.out_channels):
            expected.append((f"{shape.name}.shortcut", "shortcut"))
        expected.append((shape.name, "conv"))
    count = len(entries.head_entries(network.head, plan.parameters.weight_depth))
    assert (count == 1) == (network.spec.classes < 60)
    heads = ["head"] if count == 1 else [f"head.{index}" for index in range(count)]
    expected += [(name, "head") for name in heads]
    assert [(step.name, step.kind) for step in plan.steps] == expected
    kinds = [words_of(step)[0].kind for step in plan.steps]
    assert kinds == [Kind.STEM] + [Kind.CONV] * (len(kinds) - 1 - count) + [Kind.HEAD] * count
    assert [words_of(step)[0].last for step in plan.steps] == [0] * (len(kinds) - 1) + [1]


def test_head_steps_share_the_classes(case):
    network, plan = case
    heads = [step for step in plan.steps if step.kind == "head"]
    each = (network.spec.widths[-1] + 15) // 16 * 16 + 1  # entries of four classes
    quads = 0
    for step in heads:
        geometry, sources, _ = words_of(step)
        assert sources.weight_words == 3 * each * (geometry.columns + 1)
        assert sources.weight_words <= 3 * plan.parameters.weight_depth
        quads += geometry.columns + 1
    assert quads == (network.spec.classes + 3) // 4


def test_steps_read_what_the_last_one_wrote(case):
    """Follows the bits and the residual stream from step to step through the descriptors."""
    network, plan = case
    places, width = regions(plan), network.spec.formats.residual_width
    shapes = {conv.shape.name: conv.shape for conv in network.convolutions}
    bits = stream = None
    for step in plan.steps:
        geometry, sources, sinks = words_of(step)
        if step.kind == "stem":
            assert sources.features == plan.image_base
        elif step.kind == "head":
            last = network.spec.convolutions()[-1]
            size = (last.out_height, last.out_width, last.out_channels)
            assert sources.features == stream
            assert sinks.head_words == layout.residual_words(*size, width) - 1
        else:
            assert step.kind == "shortcut" or sources.features == bits
            assert not geometry.add or sources.shortcut == stream
        out = shapes.get(step.name.removesuffix(".shortcut"))
        if geometry.emit:
            bits = check_sink(step.bits[1], sinks.bits, "bits", sources.features, places)
        if geometry.keep:
            moved = out and (out.stride > 1 or out.in_channels != out.out_channels)
            if step.kind == "conv" and geometry.add and not moved:
                assert sinks.residual == stream  # in place
            elif stream is not None:
                assert sinks.residual != stream
            stream = sinks.residual
            assert any(stream == places[f"residuals {index}"].start for index in (0, 1))
            if step.residual is not None:
                assert step.residual[1].address == stream
        place = step.residual or step.bits
        if out and place:
            assert size_of(place[1]) == (out.out_height, out.out_width, out.out_channels)
    last = [step for step in plan.steps if step.kind == "conv"][-1]
    assert not words_of(last)[0].emit  # nothing reads them


def check_sink(place, address, kind, source, places) -> int:
    assert place.address == address != source
    region = next(
        places[f"{kind} {index}"] for index in (0, 1)
        if places[f"{kind} {index}"].start == address
    )  # fmt: skip
    assert layout.bit_words(*size_of(place)) <= len(region)
    return address


def size_of(place) -> tuple[int, int, int]:
    return place.height, place.width, place.channels


def test_geometry_of_convolutions(case):
    network, plan = case
    per_word = layout.word_channels(network.spec.formats.residual_width)
    steps = {step.name: step for step in plan.steps}
    for conv in network.convolutions:
        shape = conv.shape
        geometry = words_of(steps[shape.name])[0]
        assert geometry.rows == (shape.height + 1) // 2 - 1
        assert geometry.columns == (shape.width + 1) // 2 - 1
        assert (geometry.odd_rows, geometry.odd_columns) == (shape.height % 2, shape.width % 2)
        assert geometry.folds == (shape.in_channels + 15) // 16 - 1
        assert geometry.groups == (shape.out_channels + 15) // 16 - 1
        assert geometry.single == (shape.stride == 2)
        assert geometry.mask == (network.spec.repair.padding == "zero")
        assert geometry.add == geometry.keep == shape.shortcut
        if geometry.single or shape.in_channels != shape.out_channels:
            # Here, or in a step of its own before, the stream moves to the next stage.
            alone = steps.get(f"{shape.name}.shortcut")
            assert (alone is None) == shape.shortcut
            first, moved = shape.shortcut_offset, shape.in_channels
            geometry = words_of(alone)[0] if alone else geometry
            assert geometry.add and geometry.keep
        elif shape.shortcut:
            first, moved = 0, shape.out_channels
        else:
            continue
        assert geometry.shortcut_first * per_word == first
        assert geometry.shortcut_end * per_word == first + (moved + 15) // 16 * 16


@pytest.mark.parametrize("double", [True, False])
def test_means_go_to_every_channel_of_the_output_and_no_further(double):
    repair = Repair(downsample="avgpool-duplicate", double_residual=double)
    spec = NetworkSpec(depth=8, widths=(16, 18, 34), input=(9, 10, 2), repair=repair)
    plan = make_plan(network_of(spec), BOARD)
    assert plan.parameters.passes and plan.parameters.averages
    moves = [step for step in plan.steps if step.kind == "shortcut"]
    assert [step.name for step in moves] == ["stage1.0.conv1.shortcut", "stage2.0.conv1.shortcut"]
    for step, inside, out in zip(moves, (16, 18), (18, 34), strict=True):
        geometry, sources, _ = words_of(step)
        assert geometry.mean and geometry.single and geometry.wide_out and not geometry.in_place
        assert (geometry.shortcut_first, geometry.shortcut_end) == (0, out)
        assert sources.period == inside - 1
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
        assert sources.weight_words == 3 * max(out, out // 4 * inputs // 2)
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
    features, bits, residuals = plan.parameters.gaps
    assert plan.parameters.levels == 32
    assert (features, bits, residuals) == ((20 - 9) * 6, (20 - 7) * 2, (20 - 7) * 16)
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
    assert narrow.parameters.gaps is None and narrow.steps[1].name == "stage0.0.conv1"


def test_sums_that_lie_beside_the_stream_are_made_in_strips_where_they_do_not_fit():
    repair = Repair(activation="prelu", activation_position="before-add")
    spec = NetworkSpec(depth=6, widths=(16, 32), input=(13, 8, 2), repair=repair)
    network = network_of(spec)
    whole = make_plan(network, BOARD)
    words = whole.resources[0].used
    plan = make_plan(network, replace(BOARD, memory_words=words - 1))
    assert plan.resources[0].used < words
    assert len(regions(plan)["residuals 1"]) < len(regions(whole)["residuals 1"])
    assert len(plan.image) < len(whole.image) + 3 * 4 * 3  # but the program, nothing twice
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
            assert len({step[1].weights for step in strips}) == 1
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


def test_tensors_finds_the_maps_in_memory(case):
    _, plan = case
    memory = np.random.default_rng(0).integers(0, 2**64, BOARD.memory_words, dtype=np.uint64)
    for index, step in enumerate(plan.steps):
        tensors = plan.tensors(index, memory)
        names = [f"{step.name}.{kind}" for kind in ("residual", "bits") if getattr(step, kind)]
        assert list(tensors) == names
        for kind in ("residual", "bits"):
            if (place := getattr(step, kind)) is not None:
                assert place[0] == f"{step.name}.{kind}"
                assert tensors[place[0]].shape == size_of(place[1])
        if step.bits is not None:  # its first bit is bit 0 of its first word
            name, place = step.bits
            assert tensors[name][0, 0, 0] == memory[place.address] & np.uint64(1)


def names_of(error: DoesNotFit) -> set[str]:
    return {part.name.split(" (")[0] for part in error.resources if not part.fits}


def refused(spec: NetworkSpec, board=BOARD) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        make_plan(network_of(spec), board)
    message = str(caught.value)
    assert board.name in message and "\n" not in message
    for part in caught.value.resources:
        if not part.fits:
            assert f"{part.name}: needs {part.used}, has {part.available} (" in message
        else:
            assert part.name not in message
    return caught.value


def test_what_is_too_wide_names_every_resource():
    error = refused(NetworkSpec(depth=20, widths=(64, 128, 256)))
    assert names_of(error) == {"memory", "weight buffer", "window buffer"}
    used = {part.name.split(" (")[0]: part.used for part in error.resources}
    assert used["weight buffer"] == 256 * 256 // 16
    assert used["window buffer"] == max((16 + 2) * 4, (8 + 2) * 8, (4 + 2) * 16)
    assert isinstance(error, UserError)


@pytest.mark.parametrize(
    ("spec", "board", "resource"),
    [
        (NetworkSpec(depth=4, widths=(16,), input=(126, 60, 1)), BOARD, "memory"),
        (NetworkSpec(4, (16,), (92, 92, 1)), LARGER, "last map, or one with gates"),
        (NetworkSpec(depth=4, widths=(80,), input=(4, 4, 1)), BOARD, "weight buffer"),
        (NetworkSpec(depth=4, widths=(16,), input=(4, 126, 1)), BOARD, "window buffer"),
        (NetworkSpec(depth=4, widths=(16,), input=(4, 4, 8)), BOARD, "weight buffer"),
        (SPECS["digits"], replace(BOARD, budget=BOARD.budget | dict(ebr=26)), "block RAM"),
        (SPECS["digits"], replace(BOARD, memory_ebr=4), "block RAM"),
        (SPECS["digits"], replace(BOARD, budget=BOARD.budget | dict(dsp=4)), "multipliers"),
    ],
)
def test_each_resource_is_refused_by_its_name(spec, board, resource):
    assert names_of(refused(spec, board)) == {resource}


def test_more_folds_than_the_program_can_say_are_refused():
    error = refused(NetworkSpec(depth=4, widths=(272,), input=(2, 2, 1), classes=2))
    assert names_of(error) >= {"folds of a layer", "weight buffer"}


def test_a_logit_that_may_overflow_is_refused():
    formats = NumberFormats(residual_width=16, residual_fraction=8)
    spec = NetworkSpec(depth=4, widths=(16,), input=(40, 40, 1), formats=formats)
    assert "accumulator" in names_of(refused(spec))


def test_the_greatest_window_and_weight_buffers_fit():
    window = NetworkSpec(depth=4, widths=(16,), input=(4, 124, 1))
    weights = NetworkSpec(depth=4, widths=(64,), input=(4, 4, 1))
    for spec, name, size in ((window, "window", 64), (weights, "weight", 256)):
        resources = make_plan(network_of(spec), BOARD).resources
        part = next(part for part in resources if part.name.startswith(f"{name} buffer"))
        assert part.used == part.available == size


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
            assert names_of(error) == {"weight buffer"} and folds == 9
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
