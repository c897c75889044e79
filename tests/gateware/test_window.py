"""Window buffer, its loader and the issue together: the windows of a padded map, in order."""

import numpy as np
import pytest

from bnnhw.gateware.program import Kind
from bnnhw.network.spec import thermometer_levels
from tests.gateware.bench import bit_words, engine_parameters, flip_at_random, simulate, whole
from tests.gateware.windows import DEPTH, Windows, convolution


def random_map(rng, height, width, channels):
    """Bits (H, W, C), and what memory holds: the same with random bits to even sizes."""
    stored = rng.integers(0, 2, (height + height % 2, width + width % 2, channels))
    return stored[:height, :width], stored


async def run(ctx, dut, geometry, base, samples):
    """Start a convolution; appends (probe, window of its addresses) for each cycle."""
    ctx.set(dut.geometry, geometry)
    ctx.set(dut.base, base)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    while ctx.get(dut.issue.busy):
        probe = ctx.get(dut.probe)
        await ctx.tick()
        samples.append((probe, ctx.get(dut.buffer.window.as_value())))


def check(samples, bits, geometry, folds, groups, per_word, *, minus_one, strip=None, pe=1):
    """Channel by channel, by the definition of a padded 3 x 3 convolution on 2 x 2 outputs.

    strip : the rows of blocks that were asked for, if not all. pe : channels in parallel, which
    stand for one in what follows; per_word : of the shortcut's words.
    """
    height, width, channels = bits.shape
    rows, columns = -(-height // 2), -(-width // 2)
    strip = strip or range(rows)
    padded = np.zeros((2 * rows + 2, 2 * columns + 2, channels), int)
    inside = np.zeros(padded.shape, int)
    padded[1 : height + 1, 1 : width + 1] = bits
    inside[1 : height + 1, 1 : width + 1] = 1
    cycles = [cycle for cycle, (probe, _) in enumerate(samples) if probe.token.valid]
    order = [
        (row, column, channel)
        for row in strip
        for column in range(columns)
        for channel in range(16 // pe * groups)
    ]
    assert len(cycles) == len(order)
    for cycle, place in zip(cycles, order, strict=True):
        row, column, channel = place
        window = np.s_[2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        gone_rows = [not 0 <= 2 * row - 1 + y < height for y in range(4)]
        gone_columns = [not 0 <= 2 * column - 1 + x < width for x in range(4)]
        for fold in range(folds):
            probe, got = samples[cycle - folds + 1 + fold]
            at = (*window, np.s_[16 * fold : 16 * fold + 16])
            care = (1 << 256) - 1 if minus_one else whole(inside[at].reshape(-1))
            assert got & care == whole(padded[at].reshape(-1)), (*place, fold)
            assert probe.weight_entry == channel * folds + fold, (*place, fold)
            assert probe.first == (fold == 0), (*place, fold)
            assert probe.outside.rows == (0 if minus_one else whole(gone_rows)), place
            assert probe.outside.columns == (0 if minus_one else whole(gone_columns)), place
        token = samples[cycle][0].token
        final = [channel == 16 // pe * groups - 1, column == columns - 1]
        assert token.odd == channel % 2, place
        assert token.group_end == (channel % (16 // pe) == 16 // pe - 1), place
        assert token.position_end == final[0], place
        assert token.row_end == samples[cycle][0].retire == all(final), place
        assert token.edge_row == (2 * row + 1 >= height), place
        assert token.edge_column == (2 * column + 1 >= width), place
        word = channel // per_word
        first, end = geometry["shortcut_first"], geometry["shortcut_end"]
        assert token.shortcut == (geometry["add"] and first <= word < end), place
    assert sum(probe.retire for probe, _ in samples) == len(strip)
    return cycles


def check_memory_cycles(cycles, columns, folds, groups, per_word):
    """Within a row the memory has its cycles: a read and a write per residual word, a word of
    bits, and a feature word of the next row."""
    of_row = 16 * groups * columns
    for start in range(0, len(cycles), of_row):
        firsts = cycles[start : start + of_row : 16]
        needed = 2 * (16 // per_word) + 2
        assert all(b - a >= needed for a, b in zip(firsts, firsts[1:], strict=False)), start
        gaps = np.diff(cycles[start : start + of_row])
        assert (gaps >= folds).all()
        if per_word == 1:  # reads and writes of the residual stream alternate
            assert (gaps % 2 == 0).all()
    assert len({cycle % 2 for cycle in cycles[::2]}) == 1  # from row to row too


CASES = [  # height, width, folds, groups, residual width, probability that a grant is withheld
    (2, 2, 1, 1, 8, 0.0),
    (2, 2, 2, 1, 12, 0.5),
    (4, 6, 1, 1, 8, 0.3),
    (4, 4, 1, 2, 12, 0.0),
    (5, 3, 2, 2, 8, 0.5),
    (3, 5, 3, 1, 12, 0.9),
    (9, 4, 1, 1, 12, 0.2),
    (10, 3, 2, 1, 12, 0.95),
    (7, 8, 3, 1, 8, 0.95),
]


@pytest.mark.parametrize("pe", [2, 4, 8])
@pytest.mark.parametrize("minus_one", [False, True])
@pytest.mark.parametrize(("height", "width", "folds", "groups", "residual", "withheld"), CASES)
def test_windows_of_channels_in_parallel(
    height, width, folds, groups, residual, withheld, minus_one, pe
):
    """The stream's own memory needs no cycles between groups; 8-bit slots none at all."""
    rng = np.random.default_rng(height * width + folds)
    bits, stored = random_map(rng, height, width, 16 * folds)
    parameters = engine_parameters(residual, minus_one=minus_one, window_depth=DEPTH, pe=pe)
    geometry = convolution(
        height, width, folds, groups, mask=not minus_one, add=1,
        shortcut=(1, 16 // pe * groups - 1),
    )  # fmt: skip
    dut = Windows(parameters, [0] * 5 + bit_words(stored))
    samples = []

    async def bench(ctx):
        await run(ctx, dut, geometry, 5, samples)

    simulate(dut, bench, background=[flip_at_random(dut.memory.allow, low=withheld)])
    cycles = check(samples, bits, geometry, folds, groups, 1, minus_one=minus_one, pe=pe)
    of_row = 16 // pe * groups * -(-width // 2)
    even = folds + folds % 2 if parameters.halves == 1 else folds
    for start in range(0, len(cycles), of_row):
        assert set(np.diff(cycles[start : start + of_row])) <= {even}
    if parameters.halves == 1:
        assert len({cycle % 2 for cycle in cycles}) == 1  # reads and writes alternate


@pytest.mark.parametrize("withheld", [0.0, 0.3])
def test_words_of_a_row_are_taken_in_as_many_cycles(withheld):
    """The loader offers a word a cycle while there is room, its border's blocks included."""
    height, width, folds = 6, 14, 2
    bits, stored = random_map(np.random.default_rng(1), height, width, 16 * folds)
    parameters = engine_parameters(window_depth=DEPTH, image_height=height, image_width=width)
    dut = Windows(parameters, bit_words(stored))
    taken, allowed = [], []

    async def bench(ctx):
        ctx.set(dut.geometry, convolution(height, width, folds, 1, mask=1))
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for _ in range(400):
            allowed.append(ctx.get(dut.memory.fetch.grant))
            taken.append(ctx.get(dut.memory.fetch.request) and allowed[-1])
            await ctx.tick()

    simulate(dut, bench, background=[flip_at_random(dut.memory.allow, low=withheld)])
    cycles = [cycle for cycle, word in enumerate(taken) if word]
    of_row = folds * -(-width // 2)
    for first, last in ((cycles[at], cycles[at + of_row - 1]) for at in (0, of_row, 2 * of_row)):
        assert sum(taken[first : last + 1]) == sum(allowed[first : last + 1]) == of_row


@pytest.mark.parametrize("minus_one", [False, True])
@pytest.mark.parametrize(("height", "width", "folds", "groups", "residual", "withheld"), CASES)
def test_windows_of_a_padded_map(height, width, folds, groups, residual, withheld, minus_one):
    rng = np.random.default_rng(height * width + folds)
    bits, stored = random_map(rng, height, width, 16 * folds)
    parameters = engine_parameters(residual, minus_one=minus_one, window_depth=DEPTH)
    per_word = parameters.per_word
    geometry = convolution(
        height, width, folds, groups, mask=not minus_one, add=1,
        shortcut=(3, 8 * groups - 2),
    )  # fmt: skip
    dut = Windows(parameters, [0] * 5 + bit_words(stored))
    samples = []

    async def bench(ctx):
        await run(ctx, dut, geometry, 5, samples)

    simulate(dut, bench, background=[flip_at_random(dut.memory.allow, low=withheld)])
    cycles = check(samples, bits, geometry, folds, groups, per_word, minus_one=minus_one)
    check_memory_cycles(cycles, -(-width // 2), folds, groups, per_word)


@pytest.mark.parametrize("minus_one", [False, True])
def test_maps_follow_each_other(minus_one):
    """Nothing of one map is left for the next, of another size and depth."""
    rng = np.random.default_rng(0)
    parameters = engine_parameters(8, minus_one=minus_one, window_depth=DEPTH)
    dut_words, runs = [], []
    for height, width, folds in ((5, 3, 2), (4, 6, 1), (3, 5, 2)):
        bits, stored = random_map(rng, height, width, 16 * folds)
        geometry = convolution(height, width, folds, 1, mask=not minus_one, shortcut=(0, 8))
        runs.append((bits, geometry, folds, len(dut_words), []))
        dut_words += bit_words(stored)
    dut = Windows(parameters, dut_words)

    async def bench(ctx):
        for _, geometry, _, base, samples in runs:
            await run(ctx, dut, geometry, base, samples)
            await ctx.tick().repeat(3)

    simulate(dut, bench, background=[flip_at_random(dut.memory.allow, low=0.3)])
    for bits, geometry, folds, _, samples in runs:
        check(samples, bits, geometry, folds, 1, 2, minus_one=minus_one)


STRIPS = [  # height, width, folds, columns of blocks of a strip
    (6, 16, 2, 4), (5, 13, 3, 3), (4, 10, 5, 1), (3, 6, 4, 2),
]  # fmt: skip


@pytest.mark.parametrize("padding", ["zero", "minus-one", "bytes", "bytes, else minus-one"])
@pytest.mark.parametrize(("height", "width", "folds", "wide"), STRIPS)
def test_strips_of_an_image_that_comes_in(height, width, folds, wide, padding):
    """Each sees the columns next to it; rows are there when `received` says so, and junk before."""
    rng = np.random.default_rng(width)
    minus_one, counts = padding.endswith("minus-one"), padding != "zero"
    pad = (255, 0, 128, 60, 17)[:folds] if padding.startswith("bytes") else ()
    outside = np.zeros(16 * folds, int)
    if pad:
        outside[:] = (np.array(pad)[:, None] >= thermometer_levels(16)).reshape(-1)
    bits, stored = random_map(rng, height, width, 16 * folds)
    columns, words = -(-width // 2), bit_words(stored)
    parameters = engine_parameters(
        8, minus_one=minus_one, window_depth=DEPTH, levels=16,
        image_channels=folds, pad=pad,
        strip_gap=(columns - wide - 2) * folds,
    )  # fmt: skip
    base, runs = 20, []
    dut = Windows(parameters, [])
    for first in (*range(0, columns - wide, wide), columns - wide):
        last = first + wide == columns
        geometry = convolution(height, 2 * wide, folds, 1, mask=not counts) | dict(
            kind=Kind.STEM, odd_columns=width % 2 and last, more_left=first > 0, more_right=not last
        )
        runs.append((first, geometry, []))

    async def deliver(ctx):
        ctx.set(dut.loader.waits, 1)
        per_row = columns * folds
        for row in range(-(-height // 2)):
            await ctx.tick().repeat(400)
            for index in range(row * per_row, (row + 1) * per_row):
                ctx.set(dut.memory.storage.data[base + index], words[index])
            ctx.set(dut.loader.received, 2 * row + 2)
        ctx.set(dut.loader.waits, 0)

    async def bench(ctx):
        for first, geometry, samples in runs:
            await run(ctx, dut, geometry, base + (first - 1) * folds, samples)
            await ctx.tick().repeat(3)

    simulate(dut, bench, background=[deliver, flip_at_random(dut.memory.allow, low=0.3)])
    rows = -(-height // 2)
    padded = np.tile(outside, (2 * rows + 2, 2 * columns + 2, 1))
    inside = np.zeros(padded.shape, int)
    padded[1 : height + 1, 1 : width + 1] = bits
    inside[1 : height + 1, 1 : width + 1] = 1
    for first, _, samples in runs:
        cycles = [cycle for cycle, (probe, _) in enumerate(samples) if probe.token.valid]
        assert len(cycles) == rows * wide * 16
        for index, cycle in enumerate(cycles):
            row, column, channel = np.unravel_index(index, (rows, wide, 16))
            column += first
            for fold in range(folds):
                probe, got = samples[cycle - folds + 1 + fold]
                at = np.s_[2 * row : 2 * row + 4, 2 * column : 2 * column + 4,
                           16 * fold : 16 * fold + 16]  # fmt: skip
                care = (1 << 256) - 1 if counts else whole(inside[at].reshape(-1))
                assert got & care == whole(padded[at].reshape(-1)), (row, column, channel, fold)
                gone = [not 0 <= 2 * column - 1 + x < width for x in range(4)]
                assert probe.outside.columns == (0 if counts else whole(gone))
            token = samples[cycle][0].token
            assert token.row_end == (channel == 15 and column == first + wide - 1)
            assert token.edge_column == (2 * column + 1 >= width)


@pytest.mark.parametrize("minus_one", [False, True])
@pytest.mark.parametrize("height", [10, 9])
def test_strips_of_rows_see_the_rows_beside_them(height, minus_one):
    """The steps' addresses begin at the row above, which is part of the map."""
    rng = np.random.default_rng(height)
    width, folds, strips = 4, 2, (range(2), range(2, 3), range(3, 5))
    bits, stored = random_map(rng, height, width, 16 * folds)
    parameters = engine_parameters(8, passes=True, minus_one=minus_one, window_depth=DEPTH)
    words = bit_words(stored)
    dut = Windows(parameters, words)
    runs = []
    for strip in strips:
        inside = min(height, 2 * strip.stop) - 2 * strip.start
        geometry = convolution(inside, width, folds, 1, mask=not minus_one)
        above, below = strip.start > 0, strip.stop < 5
        geometry |= dict(above=above, below=below)
        runs.append((strip, geometry, (strip.start - above) * len(words) // 5, []))

    async def bench(ctx):
        for _, geometry, base, samples in runs:
            await run(ctx, dut, geometry, base, samples)
            await ctx.tick().repeat(3)

    simulate(dut, bench, background=[flip_at_random(dut.memory.allow, low=0.3)])
    for strip, geometry, _, samples in runs:
        check(samples, bits, geometry, folds, 1, 1, minus_one=minus_one, strip=strip)
