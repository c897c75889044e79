"""The words of a program, the parameters of an engine, and what software knows of both."""

from dataclasses import replace
from itertools import product

import pytest

from bnnhw.compiler import layout
from bnnhw.gateware import parameters
from bnnhw.gateware.memory import WORD_WIDTH
from bnnhw.gateware.program import (
    DESCRIPTOR_WORDS,
    Descriptor,
    Geometry,
    Kind,
    Load,
    Sinks,
    Sources,
    Walk,
)
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
        ("features", 0, 15), ("shortcut", 15, 15), ("period", 30, 8),
    ],
    Sinks: [
        ("bits", 0, 15), ("residual", 15, 15), ("head_words", 30, 14), ("operand", 44, 15),
        ("upper", 59, 1),
    ],
    Walk: [("position", 0, 8), ("row", 8, 15), ("entry", 23, 12)],
    Load: [
        ("weights", 0, 15), ("words", 15, 16), ("rows", 31, 3), ("folds", 34, 4), ("ahead", 38, 1),
        ("entry", 39, 12),
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


def test_a_descriptor_is_its_five_words():
    assert Descriptor.as_shape().size == DESCRIPTOR_WORDS * WORD_WIDTH
    value = word(
        Descriptor,
        geometry={"last": 1},
        sources={"features": 5},
        sinks={"bits": 7},
        walk={"position": -1},
        load={"weights": 9},
    )
    assert value == (1 << 2) | (5 << 64) | (7 << 128) | (255 << 192) | (9 << 256)


def test_software_and_gateware_agree():
    assert parameters.GROUP == layout.GROUP
    assert parameters.LANES == layout.LANES
    for width, pe in product(range(8, 17), (1, 2, 4, 8)):
        engine = replace(engine_parameters(8, pe=pe), residual_width=width)
        assert engine.slot_width == layout.slot_width(width)
        assert engine.word_width == WORD_WIDTH * pe == engine.per_word * 4 * engine.slot_width
        assert layout.residual_words(4, 6, 20, engine.per_word) * engine.per_word == 6 * 32


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
        (dict(activation=True, passes=True), "activation: not with passes"),
        (dict(activation=True, residual_width=12), r"residual_width \+ guard = 16, not 15"),
        (dict(activation=True, shift=7), r"or shift=7 not in \[8, 13\]"),
        (dict(positive=True), "positive: needs activation"),
        (dict(tiles=True, passes=True), "tiles: not with passes"),
        (dict(shift_out=True), "shift_out: needs activation"),
        (dict(in_place=True), "in_place: needs passes"),
        (dict(spatial=True), "spatial: needs passes"),
        (dict(shortcut_shift=3), "shortcut_shift: needs passes"),
        (dict(levels=7), "levels=7 is not an even number below 256"),
        (dict(levels=256), "levels=256 is not an even number below 256"),
        (dict(strip_gap=3), "strip_gap: needs levels"),
        (dict(pe=3), "pe=3 is not 1, 2, 4 or 8"),
        (dict(pe=16), "pe=16 is not 1, 2, 4 or 8"),
        (dict(pe=8), "tokens=4, pe=8: more than 16 sums at once"),
        (dict(tokens=3), "tokens=3, pe=1: more than 16 sums at once"),
        (dict(tokens=2, shortcut_shift=3), "tokens=2: gates and shortcut_shift need 4"),
        (dict(pe=2, passes=True, gates=True), "pe=2: gates, shortcut_shift and spatial need 1"),
        (dict(spatial=True, passes=True, shift=14), r"spatial: shift=14 is not in \[6, 13\]"),
    ],
)
def test_wrong_parameters_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(engine_parameters(8), **changes)
