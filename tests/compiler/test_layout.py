"""Memory words against their description, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.compiler import entries, layout
from bnnhw.errors import UserError
from bnnhw.gateware.parameters import ArrayShape
from bnnhw.network.integer import IntegerActivation, IntegerHead, IntegerStem, Requantiser
from bnnhw.network.spec import NumberFormats

SIZES = [(2, 2, 16), (4, 6, 16), (5, 3, 32), (1, 7, 48), (3, 4, 6), (2, 3, 24)]


def padded(channels: int) -> int:
    return (channels + 15) // 16 * 16


def blocks(height: int, width: int) -> int:
    return (height + 1) // 2 * ((width + 1) // 2)


def block_of(y: int, x: int, width: int) -> tuple[int, int]:
    """A pixel's block, row-major, and its lane."""
    return y // 2 * ((width + 1) // 2) + x // 2, 2 * (y % 2) + x % 2


def field(word: int, low: int, bits: int) -> int:
    return int(word) >> low & (1 << bits) - 1


def signed(value: int, bits: int) -> int:
    return value - (value >> (bits - 1) << bits)


@pytest.mark.parametrize("size", SIZES)
def test_bits_lie_by_block_group_and_lane(size):
    height, width, channels = size
    groups = padded(channels) // 16
    count = layout.bit_words(*size)
    assert count == blocks(height, width) * groups
    words = np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)
    bits = layout.unpack_bits(words, *size)
    assert bits.shape == size and bits.dtype == np.uint8
    for y, x, c in np.ndindex(*size):
        block, lane = block_of(y, x, width)
        word = words[block * groups + c // 16]
        assert bits[y, x, c] == field(word, 16 * lane + c % 16, 1), (y, x, c)


@pytest.mark.parametrize("size", SIZES)
def test_factors_lie_by_block_and_lane(size):
    height, width, _ = size
    factors = np.random.default_rng(0).integers(1, 256, (height, width)).astype(np.uint8)
    words = layout.pack_factors(factors)
    assert words.dtype == np.uint64 and len(words) == blocks(height, width)
    want = [0] * len(words)
    for y, x in np.ndindex(height, width):
        block, lane = block_of(y, x, width)
        want[block] |= int(factors[y, x]) << 16 * lane
    assert words.tolist() == want


@pytest.mark.parametrize("residual_width", [8, 9, 16])
@pytest.mark.parametrize("size", SIZES)
def test_residuals_lie_by_block_channel_and_lane(size, residual_width):
    height, width, channels = size
    slot = 8 if residual_width == 8 else 16
    per_word = 64 // (4 * slot)
    assert layout.slot_width(residual_width) == slot
    assert ArrayShape().word_channels(slot) == per_word
    assert [ArrayShape(pe=pe).word_channels(slot) for pe in (2, 8)] == [2 * per_word, 8 * per_word]
    count = layout.residual_words(*size, per_word)
    assert count == blocks(height, width) * padded(channels) // per_word
    words = np.random.default_rng(1).integers(0, 2**64, count, dtype=np.uint64)
    values = layout.unpack_residuals(words, *size, residual_width)
    assert values.shape == size and values.dtype == np.int32
    for y, x, c in np.ndindex(*size):
        block, lane = block_of(y, x, width)
        word = words[(block * padded(channels) + c) // per_word]
        raw = field(word, slot * (4 * (c % per_word) + lane), slot)
        assert values[y, x, c] == signed(raw, slot), (y, x, c)


def test_unpacking_takes_words_that_are_not_contiguous():
    memory = np.random.default_rng(2).integers(0, 2**64, 16, dtype=np.uint64)
    assert (
        layout.unpack_bits(memory[::2], 4, 4, 32)
        == layout.unpack_bits(memory[::2].copy(), 4, 4, 32)
    ).all()


def test_entries_are_three_words_of_taps_and_a_parameter():
    rng = np.random.default_rng(3)
    taps, parameters = rng.integers(0, 1 << 16, (7, 9)), rng.integers(-32768, 32768, (7, 3))
    words = layout.pack_entries(taps, parameters)
    assert words.shape == (21,) and words.dtype == np.uint64
    for entry, row in np.ndindex(7, 3):
        word = words[3 * entry + row]
        assert [field(word, 16 * kx, 16) for kx in range(3)] == taps[entry, 3 * row :][:3].tolist()
        assert signed(field(word, 48, 16), 16) == parameters[entry, row]


def table(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries' taps (N, 9) and parameters (N, 3)."""
    taps = [[field(words[3 * n + t // 3], 16 * (t % 3), 16) for t in range(9)]
            for n in range(len(words) // 3)]  # fmt: skip
    parameters = [[signed(field(words[3 * n + p], 48, 16), 16) for p in range(3)]
                  for n in range(len(words) // 3)]  # fmt: skip
    return np.array(taps), np.array(parameters)


def requantiser(rng: np.random.Generator, channels: int) -> Requantiser:
    scale, bias = rng.integers(-32768, 32768, (2, channels)).astype(np.int32)
    return Requantiser(scale, bias, rng.integers(-128, 128, channels).astype(np.int32))


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (32, 48), (6, 10), (18, 4)])
def test_convolution_entries_hold_taps_by_channel_and_fold(inputs, outputs):
    rng = np.random.default_rng(inputs)
    weights = rng.choice(np.array([-1, 1], np.int8), (outputs, 3, 3, inputs))
    part = requantiser(rng, outputs)
    taps, parameters = table(entries.convolution_entries(weights, part))
    folds = padded(inputs) // 16
    assert len(taps) == padded(outputs) * folds
    for out, fold, tap in np.ndindex(padded(outputs), folds, 9):
        got = [field(taps[out * folds + fold, tap], c, 1) for c in range(16)]
        real = range(16 * fold, min(16 * fold + 16, inputs))
        if out < outputs:
            assert got[: len(real)] == [int(weights[out, tap // 3, tap % 3, c] > 0) for c in real]
        # Padded inputs are all alike: half of the weights match them, whatever they are.
        rest = got[len(real) if out < outputs else 0 :]
        assert 2 * sum(rest) == len(rest), (out, fold, tap)
    for out in range(padded(outputs)):
        want = [part.scale[out], part.bias[out], part.threshold[out]] if out < outputs else [0] * 3
        for fold in range(folds):
            assert parameters[out * folds + fold].tolist() == want


def test_a_threshold_becomes_scale_one_and_a_bias():
    """bit = acc >= threshold for every even acc, through y = (half * scale >> shift) + bias."""
    formats = NumberFormats()
    threshold = np.arange(-145, 146, dtype=np.int32)
    part = entries.threshold_parameters("stage0.0.conv1", threshold, formats)
    for acc in range(-144, 145, 2):
        shift = formats.scale_fraction - formats.guard
        y = ((acc // 2 * part.scale >> shift) + part.bias) >> formats.guard
        assert ((y >= part.threshold) == (acc >= threshold)).all(), acc


def test_faults_of_entries_are_explained():
    formats = NumberFormats(guard=6)
    with pytest.raises(UserError, match=r"stage1\.0\.conv1: has neither scale nor threshold"):
        entries.threshold_parameters("stage1.0.conv1", None, formats)
    with pytest.raises(UserError, match=r"stage1\.0\.conv1: thresholds need more than 16 bits"):
        entries.threshold_parameters("stage1.0.conv1", np.array([1026], np.int32), formats)
    never = Requantiser(*np.array([[0], [0], [32768]], np.int32))
    with pytest.raises(UserError, match="does not fit 16 bits"):
        entries.convolution_entries(np.ones((1, 3, 3, 2), np.int8), never)


def test_scale_entries_hold_slopes_and_no_weights():
    rng = np.random.default_rng(0)
    part = requantiser(rng, 20)
    shift_in, negative = rng.integers(-32768, 32768, (2, 20)).astype(np.int32)
    act = IntegerActivation(shift_in, part.scale, negative, part.bias)
    taps, parameters = table(entries.scale_entries(part, act))
    assert len(taps) == 32 and not taps[:, 1:].any()
    for channel in range(32):
        want = [0, 0, 0, 0]
        if channel < 20:
            want = [negative[channel], part.scale[channel], part.bias[channel],
                    part.threshold[channel]]  # fmt: skip
        got = signed(int(taps[channel, 0]), 16)
        assert [got, *parameters[channel].tolist()] == want
    assert not table(entries.scale_entries(part, None))[0].any()
    words = entries.scale_entries(part, act).reshape(-1, 3)
    for rows in (range(2), range(1, 2), range(1, 3)):
        got = entries.scale_entries(part, act, rows)
        assert np.array_equal(got, words[:, rows.start : rows.stop].reshape(-1))


def bytes_of(taps: np.ndarray) -> list[int]:
    """Four signed bytes in taps 0 and 1; nothing in the others."""
    assert not taps[2:].any()
    return [signed(field(taps[index // 2], 8 * (index % 2), 8), 8) for index in range(4)]


@pytest.mark.parametrize(("outputs", "channels"), [(16, 3), (6, 1), (20, 2)])
def test_stem_entries_are_four_channels_bytes_by_tap_and_input(outputs, channels):
    rng = np.random.default_rng(outputs)
    weights = rng.integers(-127, 128, (outputs, 3, 3, channels)).astype(np.int8)
    part = requantiser(rng, outputs)
    taps, parameters = table(entries.stem_entries(IntegerStem(weights, 4, part)))
    assert len(taps) >= max(padded(outputs), padded(outputs) // 4 * 9 * channels)
    for quad, tap, c in np.ndindex(padded(outputs) // 4, 9, channels):
        got = bytes_of(taps[(quad * 9 + tap) * channels + c])
        want = [
            int(weights[out, tap // 3, tap % 3, c]) if out < outputs else 0
            for out in range(4 * quad, 4 * quad + 4)
        ]
        assert got == want, (quad, tap, c)
    for out in range(outputs):
        assert parameters[out].tolist() == [part.scale[out], part.bias[out], part.threshold[out]]


@pytest.mark.parametrize(
    ("classes", "channels", "half", "steps"),
    [
        (10, 16, 256, [3]),
        (4, 32, 33, [1]),
        (5, 32, 65, [1, 1]),
        (3, 6, 16, [1]),
        (22, 16, 34, [2, 2, 2]),
        (17, 16, 67, [3, 2]),
    ],
)
def test_head_entries_are_four_classes_bytes_by_channel_then_the_bias(
    classes, channels, half, steps
):
    """`steps` has the fours of classes of each step: as many as there is room for, at least one."""
    rng = np.random.default_rng(classes)
    weights = rng.integers(-127, 128, (classes, channels)).astype(np.int8)
    mantissa = rng.integers(-127, 128, classes).astype(np.int8)
    parts = entries.head_entries(
        IntegerHead(weights, mantissa, 3), ArrayShape(weight_depth=2 * half)
    )
    each = padded(channels) + 1
    assert [len(words) for words in parts] == [3 * each * quads for quads in steps]
    taps = np.concatenate([table(words)[0] for words in parts])
    for quad, c in np.ndindex(sum(steps), each):
        column = mantissa if c == each - 1 else weights[:, c] if c < channels else 0 * mantissa
        want = [int(column[out]) if out < classes else 0 for out in range(4 * quad, 4 * quad + 4)]
        assert bytes_of(taps[quad * each + c]) == want, (quad, c)


def test_thermometers_are_padded_to_groups_with_weights_that_cancel():
    weights = np.random.default_rng(3).choice(np.array([-1, 1], np.int8), (4, 3, 3, 2 * 18))
    padded = entries.thermometer_weights(weights, 18).reshape(4, 3, 3, 2, 32)
    assert np.array_equal(padded[..., :18].reshape(weights.shape), weights)
    assert not padded[..., 18:].sum(-1).any() and padded.dtype == np.int8
    whole = weights[..., :32]
    assert np.array_equal(entries.thermometer_weights(whole, 16), whole)


def test_pointwise_entries_hold_two_inputs_of_four_outputs():
    rng = np.random.default_rng(5)
    weights = rng.integers(-127, 128, (34, 18)).astype(np.int8)
    part = requantiser(rng, 34)
    taps, parameters = table(entries.pointwise_entries(weights, part))
    assert len(taps) == 48 // 4 * 32 // 2
    for quad, pair in np.ndindex(12, 16):
        entry = taps[quad * 16 + pair].astype("<u2").view(np.int8)
        for index in range(8):
            output, i = 4 * quad + index % 4, 2 * pair + index // 4
            assert entry[index] == (weights[output, i] if output < 34 and i < 18 else 0)
        assert not entry[8:].any()
    assert np.array_equal(parameters[:34, 0].astype(np.int16), part.scale)
    assert np.array_equal(parameters[:34, 1].astype(np.int16), part.bias)
    assert not parameters[34:].any()


@pytest.mark.parametrize(("outputs", "inputs"), [(4, 16), (18, 6), (9, 34), (16, 64)])
def test_layer_entries_are_four_outputs_bytes_by_input(outputs, inputs):
    rng = np.random.default_rng(outputs)
    weights = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    part = requantiser(rng, outputs)
    words = entries.layer_entries(weights, part)
    whole = np.zeros((len(words) // 2, 3), np.uint64)
    whole[:, :2] = words.reshape(-1, 2)  # no thresholds
    taps, parameters = table(whole.reshape(-1))
    assert len(taps) == max(-(-outputs // 4) * padded(inputs), padded(outputs))
    for quad, c in np.ndindex(-(-outputs // 4), padded(inputs)):
        some = range(4 * quad, 4 * quad + 4)
        want = [int(weights[o, c]) if o < outputs and c < inputs else 0 for o in some]
        assert bytes_of(taps[quad * padded(inputs) + c]) == want, (quad, c)
    for out in range(outputs):
        assert parameters[out, :2].tolist() == [part.scale[out], part.bias[out]]


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("shift_out", [False, True])
def test_channels_have_slopes_after_their_first_entry(folds, shift_out):
    rng = np.random.default_rng(folds)
    weights = rng.choice([-1, 1], (6, 3, 3, 16 * folds)).astype(np.int8)
    part = Requantiser(*rng.integers(-100, 100, (3, 6)).astype(np.int32))
    act = IntegerActivation(*rng.integers(0, 900, (4, 6)).astype(np.int32))
    slopes = entries.Slopes(one=256, rounding=8, shift_out=shift_out)
    for used in (act, None):
        words = entries.convolution_entries(weights, part, slopes, used)
        channels = words.reshape(16, 3 * folds + 1)
        plain = replace(part, bias=part.bias - 8 * (used is None and not shift_out))
        entry = np.delete(channels, 3, axis=1).reshape(-1)
        assert entry.tolist() == entries.convolution_entries(weights, plain).tolist()
        got = np.ascontiguousarray(channels[:, 3]).view("<u2").reshape(16, 4)
        want = np.zeros((16, 4), int)
        columns = (256, 256, 0) if used is None else (act.positive, act.negative, act.shift_out)
        for index, column in enumerate(columns):
            want[:6, index] = column
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize("pe", [1, 2, 4, 8])
@pytest.mark.parametrize("folds", [1, 3])
def test_entries_of_channels_in_parallel_are_next_to_each_other(pe, folds):
    channels = 16
    taps = np.arange(channels * folds)[:, None].repeat(9, 1)
    got = layout.in_parallel(taps, folds, pe)
    want = [
        (first + channel) * folds + fold
        for first in range(0, channels, pe)
        for fold in range(folds)
        for channel in range(pe)
    ]
    assert got.tolist() == [[number] * 9 for number in want]
    words = layout.pack_entries(got, 0 * got[:, :3])
    slopes = np.arange(4 * channels).reshape(channels, 4)
    added, at = layout.add_slopes(words, slopes, folds, pe).tolist(), 0
    for index, number in enumerate(want):
        assert added[at : at + 3] == [number * 0x0001_0001_0001] * 3
        at += 3
        if index // pe % folds == 0:  # of a channel's first entry
            row = slopes[number // folds].tolist()
            assert added[at] == sum(slope << 16 * place for place, slope in enumerate(row))
            at += 1
    assert at == len(added)


@pytest.mark.parametrize(("pe", "tokens"), [(1, 2), (2, 4), (4, 4), (8, 2), (8, 1)])
@pytest.mark.parametrize(("classes", "resident"), [(10, True), (40, False), (70, False)])
def test_head_entries_of_channels_in_parallel(pe, tokens, classes, resident):
    """Class token * pe + channel of a walk is byte `token` of the channel's first word."""
    rng = np.random.default_rng(classes)
    shape = ArrayShape(pe=pe, tokens=tokens, weight_depth=128, resident=resident)
    weights = rng.integers(-127, 128, (classes, 16)).astype(np.int8)
    mantissa = rng.integers(-127, 128, classes).astype(np.int8)
    parts = entries.head_entries(IntegerHead(weights, mantissa, 3), shape)
    rows = 3 if pe == 1 else 1
    each, most = pe * tokens, 7 if resident else 3  # walks of 17 entries in 128, in 64
    walks = -(-classes // each)
    steps = [min(most, walks - at) for at in range(0, walks, most)]
    assert [len(part) for part in parts] == [rows * 17 * pe * count for count in steps]
    words = np.concatenate(parts)[::rows].reshape(-1, 17, pe)
    for walk, c, channel in np.ndindex(words.shape):
        column = mantissa if c == 16 else weights[:, c]
        outs = [walk * each + token * pe + channel for token in range(tokens)]
        want = [int(column[out]) if out < classes else 0 for out in outs]
        word = int(words[walk, c, channel])
        got = [signed(word >> 8 * byte & 255, 8) for byte in range(4)]
        assert got == want + [0] * (4 - tokens) and not word >> 32


@pytest.mark.parametrize(("pe", "tokens"), [(2, 4), (8, 2)])
def test_stem_entries_of_channels_in_parallel(pe, tokens):
    rng = np.random.default_rng(pe)
    weights = rng.integers(-127, 128, (18, 3, 3, 2)).astype(np.int8)
    part = requantiser(rng, 18)
    shape = ArrayShape(pe=pe, tokens=tokens)
    taps, parameters = table(entries.stem_entries(IntegerStem(weights, 4, part), None, shape))
    each = pe * tokens
    flat = np.zeros((32, 18), int)
    flat[:18] = weights.reshape(18, -1)
    for walk, at, channel in np.ndindex(32 // each, 18, pe):
        want = [flat[walk * each + token * pe + channel, at] for token in range(tokens)]
        got = bytes_of(taps[(walk * 18 + at) * pe + channel])
        assert got == want + [0] * (4 - tokens)
    for out in range(18):
        assert parameters[out].tolist() == [part.scale[out], part.bias[out], part.threshold[out]]
