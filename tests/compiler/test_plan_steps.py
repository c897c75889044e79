"""Steps of a plan: the layers in order, each of which reads what the last one wrote."""

from __future__ import annotations

from bnnhw.compiler import entries, layout
from bnnhw.gateware.program import Kind
from tests.plans import loads_of, regions, size_of, walk_of, words_of


def test_steps_are_the_layers_and_the_moves_between_stages(case):
    network, plan = case
    expected = [("stem", "stem")]
    for conv in network.convolutions:
        shape = conv.shape
        if not shape.shortcut and (shape.stride, shape.in_channels) != (1, shape.out_channels):
            expected.append((f"{shape.name}.shortcut", "shortcut"))
        if shape.name in ("stage2.0.conv2", "stage2.1.conv1", "stage2.1.conv2", "stage2.2.conv1",
                          "stage2.2.conv2"):  # fmt: skip
            expected.append((f"{shape.name}.channels0", "conv"))
        expected.append((shape.name, "conv"))
    count = len(entries.head_entries(network.head, plan.parameters))
    assert count == {48: 2, 64: 3}.get(
        network.spec.widths[-1], 5 if network.spec.classes == 60 else 1
    )
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
    for step, load in zip(heads, loads_of(plan)[-len(heads) :], strict=True):
        geometry, sources, _ = words_of(step)
        assert load.words == 3 * each * (geometry.columns + 1)
        assert load.words <= 3 * plan.parameters.weight_depth // 2 and load.ahead
        quads += geometry.columns + 1
    assert quads == (network.spec.classes + 3) // 4


def test_steps_read_what_the_last_one_wrote(case):
    """Follows the bits and the residual stream from step to step through the descriptors."""
    network, plan = case
    places, per_word = regions(plan), plan.parameters.per_word
    shapes = {conv.shape.name: conv.shape for conv in network.convolutions}
    bits = stream = None
    for step in plan.steps:
        geometry, sources, sinks = words_of(step)
        _, _, tile = step.name.partition(".channels")
        walk = walk_of(step)
        tiled = step.kind == "conv" and not geometry.single
        # Groups of channels before its tile, which a walk leaves out.
        first = int(tile) // 16 if tile else walk.position * tiled
        before = first * 16 // per_word
        if step.kind == "stem":
            assert sources.features == plan.image_base
        elif step.kind == "head":
            last = network.spec.convolutions()[-1]
            size = (last.out_height, last.out_width, last.out_channels)
            assert sources.features == stream
            assert sinks.head_words == layout.residual_words(*size, per_word) - 1
        else:
            assert step.kind == "shortcut" or sources.features == bits
            assert not geometry.add or sources.shortcut - before == stream
        out = shapes.get(step.name.removesuffix(".shortcut"))
        if tile:  # the map's last tile says where it is
            continue
        if geometry.emit:
            assert not tiled or walk.position == walk.row == first
            bits = check_sink(step.bits[1], sinks.bits - first, "bits", sources.features, places)
        if geometry.keep:
            moved = out and (out.stride > 1 or out.in_channels != out.out_channels)
            if step.kind == "conv" and geometry.add and not moved:
                assert sinks.residual - before == stream  # in place
            elif stream is not None:
                assert sinks.residual != stream
            stream = sinks.residual - before
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


def test_geometry_of_convolutions(case):
    network, plan = case
    per_word = plan.parameters.per_word
    steps = {step.name: step for step in plan.steps}
    for conv in network.convolutions:
        shape = conv.shape
        geometry, _, _ = words_of(steps[shape.name])
        walk, all_groups = walk_of(steps[shape.name]), (shape.out_channels + 15) // 16
        beyond = 0 if shape.stride == 2 else walk.position
        if shape.stride == 2:  # back to the block's first group, to the row's
            columns = (shape.out_width + 1) // 2
            assert (walk.position, walk.row) == (-all_groups, -all_groups * columns)
        assert geometry.rows == (shape.height + 1) // 2 - 1
        assert geometry.columns == (shape.width + 1) // 2 - 1
        assert (geometry.odd_rows, geometry.odd_columns) == (shape.height % 2, shape.width % 2)
        assert geometry.folds == (shape.in_channels + 15) // 16 - 1
        assert geometry.groups + beyond == all_groups - 1
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
        end = geometry.shortcut_end * per_word
        assert end + 16 * beyond == first + (moved + 15) // 16 * 16
