"""Steps of a plan: the layers in order, each of which reads what the last one wrote."""

from __future__ import annotations

from bnnhw.compiler import entries, layout
from bnnhw.gateware.program import Kind
from tests.plans import regions, size_of, words_of


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
