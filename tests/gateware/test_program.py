"""The words of a program, the parameters of an engine, and what software knows of both."""

from dataclasses import replace

import pytest

from bnnhw.compiler import entries, layout
from bnnhw.gateware import parameters
from bnnhw.gateware.memory import WORD_WIDTH
from bnnhw.gateware.program import DESCRIPTOR_WORDS, Descriptor, Geometry, Kind, Sinks, Sources
from tests.gateware.bench import engine_parameters

# Name, lowest bit and bits of every field: boot images hold them.
FIELDS = {
    Geometry: [
        ("kind", 0, 2), ("last", 2, 1), ("single", 3, 1), ("add", 4, 1), ("keep", 5, 1),
        ("emit", 6, 1), ("mask", 7, 1), ("columns", 8, 8), ("rows", 16, 8),
        ("odd_columns", 24, 1), ("odd_rows", 25, 1), ("folds", 26, 4), ("groups", 30, 6),
        ("shortcut_first", 36, 9), ("shortcut_end", 45, 9), ("above", 54, 1), ("below", 55, 1),
        ("in_place", 56, 1),
        ("wide_out", 57, 1), ("scaled", 58, 1), ("centre", 59, 1), ("mean", 60, 1),
        ("spatial", 61, 1), ("more_left", 62, 1), ("more_right", 63, 1),
    ],
    Sources: [
        ("weights", 0, 15), ("weight_words", 15, 10), ("features", 25, 15), ("shortcut", 40, 15),
        ("period", 55, 8),
    ],
    Sinks: [
        ("bits", 0, 15), ("residual", 15, 15), ("head_words", 30, 14), ("operand", 44, 15),
        ("upper", 59, 1), ("rows", 60, 2),
    ],
}  # fmt: skip


def word(struct, /, **fields):
    return struct.const(fields).as_value().value


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_are_where_boot_images_have_them(kind):
    assert kind.as_shape().size == WORD_WIDTH
    for name, low, width in FIELDS[kind]:
        if name == "kind":
            values = {Kind.STEM: 0, Kind.CONV: 1, Kind.HEAD: 2, Kind.POINTWISE: 3}
            assert {step: word(kind, kind=step) for step in Kind} == values
            continue
        field = kind.as_shape()[name]
        assert (field.offset, field.width) == (low, width), name
    known = {name for name, _, _ in FIELDS[kind]}
    assert {name for name, _ in kind.as_shape()} - {"_unused"} == known


def test_a_descriptor_is_its_three_words():
    assert Descriptor.as_shape().size == DESCRIPTOR_WORDS * WORD_WIDTH
    value = word(Descriptor, geometry={"last": 1}, sources={"weights": 5}, sinks={"bits": 7})
    assert value == (1 << 2) | (5 << 64) | (7 << 128)


def test_software_and_gateware_agree():
    assert parameters.GROUP == layout.GROUP
    assert parameters.LANES == layout.LANES
    assert parameters.MACS == entries.MACS
    for width in range(8, 17):
        engine = replace(engine_parameters(8), residual_width=width)
        assert engine.slot_width == layout.slot_width(width)
        assert engine.word_channels == layout.word_channels(width)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(residual_width=7), r"residual_width=7 is not in \[8, 16\]"),
        (dict(residual_width=17), r"residual_width=17 is not in \[8, 16\]"),
        (dict(image_channels=0), r"image_channels=0 is not in \[1, 8\]"),
        (dict(image_channels=9), r"image_channels=9 is not in \[1, 8\]"),
        (dict(window_depth=8), "window_depth=8 is not a power of two from 16"),
        (dict(window_depth=48), "window_depth=48 is not a power of two from 16"),
        (dict(weight_depth=100), "weight_depth=100 is not a power of two from 16"),
        (dict(passes=True, residual_width=12), r"passes: residual_width \+ guard = 16, not 15"),
        (dict(averages=True), "averages: needs passes"),
        (dict(in_place=True), "in_place: needs passes"),
        (dict(spatial=True), "spatial: needs passes"),
        (dict(shortcut_shift=3), "shortcut_shift: needs passes"),
        (dict(levels=7), "levels=7 is not an even number below 256"),
        (dict(levels=256), "levels=256 is not an even number below 256"),
        (dict(gaps=(1, 2, 3)), "gaps: need levels"),
        (dict(spatial=True, passes=True, shift=14), r"spatial: shift=14 is not in \[6, 13\]"),
    ],
)
def test_wrong_parameters_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(engine_parameters(8), **changes)
