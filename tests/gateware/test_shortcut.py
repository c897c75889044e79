"""The shortcut reader against the map in its memory."""

import random
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.gateware.shortcut import ShortcutReader
from tests.gateware.bench import Memory, engine_parameters, play, residual_words, simulate, wide

CHANNELS = range(8, 24)  # of 32 have a shortcut, from a map of 16 channels
BLOCKS = 3


def probe_of(dut, pe):
    """What reads all residuals of a cycle."""
    return lambda ctx: [
        ctx.get(dut.residual[channel][lane]) for channel in range(pe) for lane in range(4)
    ]


def played(dut, words, cycles, pe):
    """All residuals of each cycle, and of three more, with a memory of these words."""
    m, samples = Module(), []
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(words, width=64 * pe)
    connect(m, dut.memory, memory.fetch)

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        samples.extend(await play(ctx, cycles + [[(dut.token, {})]] * 3, probe_of(dut, pe)))

    simulate(m, bench)
    return samples


@pytest.mark.parametrize("pe", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize("gaps", [[1], [2], [1, 2, 3, 6]])
def test_residuals_come_three_cycles_after_their_token(width, gaps, pe):
    rng = random.Random(width)
    limit = 1 << (width - 1)
    values = np.random.default_rng(width).integers(-limit, limit, (2 * BLOCKS, 2, 16))
    parameters = engine_parameters(width, pe=pe)
    dut = ShortcutReader(parameters)
    words = wide(residual_words(values, parameters.slot_width), pe)
    cycles, expected = [], {}

    def channels_of(block, first):  # `odd` is the place in the word that is read
        has = first in CHANNELS
        expected[len(cycles) + 3] = [
            int(values[2 * block + lane // 2, lane % 2, channel - 8]) if has else 0
            for channel in range(first, first + pe)
            for lane in range(4)
        ]
        cycles.append([(dut.token, dict(valid=1, shortcut=has, odd=(first - 8) // pe % 2))])
        for _ in range(rng.choice(gaps) - 1):
            cycles.append([(dut.token, dict(shortcut=rng.randrange(2), odd=rng.randrange(2)))])

    for first in (0, 1):  # the second time from the second block on
        cycles += [
            [(dut.load, 1), (dut.base, 3 + first * len(words) // BLOCKS), (dut.token, {})],
            [(dut.load, 0)],
        ]
        for block in range(first, BLOCKS):
            for channel in range(0, 32, pe):
                channels_of(block, channel)
    samples = played(dut, [1, 2, 3, *words], cycles, pe)
    assert {cycle: samples[cycle] for cycle in expected} == expected


@pytest.mark.parametrize("pe", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [8, 12])
def test_residuals_of_a_tile_of_channels(width, pe):
    """Of 64 channels those from 16 to 47."""
    limit = 1 << (width - 1)
    values = np.random.default_rng(width).integers(-limit, limit, (4, 4, 64))
    parameters = engine_parameters(width, tiles=True, pe=pe)
    dut = ShortcutReader(parameters)
    per_word = parameters.per_word
    words = wide(residual_words(values, parameters.slot_width), pe)
    walk = {"position": 2, "row": 2}
    cycles = [[(dut.load, 1), (dut.base, 16 // per_word), (dut.walk, walk)], [(dut.load, 0)]]
    expected = {}
    for block in range(4):
        y, x = 2 * (block // 2), 2 * (block % 2)
        for first in range(16, 48, pe):
            expected[len(cycles) + 3] = [
                int(values[y + lane // 2, x + lane % 2, channel])
                for channel in range(first, first + pe)
                for lane in range(4)
            ]
            odd = first // pe % 2 if parameters.halves == 2 else 0
            token = dict(valid=1, shortcut=1, odd=odd, position_end=first + pe == 48)
            cycles.append([(dut.token, token)])
    samples = played(dut, words, cycles, pe)
    assert {cycle: samples[cycle] for cycle in expected} == expected


def test_single_pixels_are_read_where_they_are_written():
    """Positions in the order of a step of stride 2: row by row of the map's pixels."""
    rng = np.random.default_rng(2)
    height, width, channels = 4, 6, 16
    values = rng.integers(-32768, 32768, (height, width, channels))
    dut = ShortcutReader(engine_parameters(passes=True, in_place=True))
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(residual_words(values, 16))
    connect(m, dut.memory, memory.fetch)
    walk = {"position": -1, "row": -width // 2}
    cycles = [[(dut.load, 1), (dut.in_place, 1), (dut.walk, walk)], [(dut.load, 0)]]
    expected = {}
    for y, x, c in np.ndindex(height, width, channels):
        ends = dict(position_end=c == channels - 1, row_end=(x, c) == (width - 1, channels - 1))
        expected[len(cycles) + 3] = values[y, x, c]
        cycles += [[(dut.token, dict(valid=1, shortcut=1, **ends))], [(dut.token, {})]]
    samples = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        padded = [*cycles, [], []]
        samples.extend(await play(ctx, padded, lambda ctx: ctx.get(dut.residual[0][0])))

    simulate(m, bench)
    assert {cycle: samples[cycle] for cycle in expected} == expected


@pytest.mark.parametrize(
    ("height", "width", "channels", "out", "bits"),
    [
        (5, 3, 18, 34, 8),
        (4, 4, 16, 34, 8),
        (3, 2, 6, 16, 12),
        (2, 5, 34, 36, 12),
        (3, 3, 16, 16, 8),
    ],
)
@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("pe", [1, 2, 4, 8])
def test_means_repeat_the_channels_and_the_edges(height, width, channels, out, bits, passes, pe):
    """A map of few channels for one of many, both of whole groups of 16 in memory. Without passes
    a channel may come in every cycle, but for two after 16 in a memory that is shared, and words
    may be of two tokens."""
    rng = np.random.default_rng(channels)
    inside, outside = -(-channels // 16) * 16, -(-out // 16) * 16
    rows, columns = -(-height // 2), -(-width // 2)
    # Of what is past an odd edge, and past the last channel, anything may be in memory.
    limit = 1 << (bits - 1)
    memory = rng.integers(-limit, limit, (2 * rows, 2 * columns, inside))
    memory[:2, :2, 0], memory[:2, :2, 1] = -limit, limit - 1
    odd = height % 2 or width % 2
    parameters = engine_parameters(bits, passes=passes, averages=True, odd_maps=bool(odd), pe=pe)
    if channels % parameters.per_word:  # the compiler refuses it, for its words are of no block
        channels = out = inside
    dut = ShortcutReader(parameters)
    slots = memory << parameters.slot_fraction
    words = [1, 2, 3, *wide(residual_words(slots, parameters.slot_width), pe)]
    per_word = parameters.per_word
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, source = (
        dut,
        Memory(words, depth=512, width=64 * pe),
    )
    connect(m, dut.memory, source.fetch)
    period = channels // per_word - 1
    load = [(dut.base, 3), (dut.period, period), (dut.mean, 1), (dut.in_place, 0)]
    cycles = [[(dut.load, 1), *load], [(dut.load, 0), (dut.base, 0), (dut.period, 0)]]
    expected = {}
    for y, x, first in product(range(rows), range(columns), range(0, outside, pe)):
        has, last = first < out, first + pe == outside
        means = []
        for c in range(first, first + pe):
            block = [
                int(memory[min(row, height - 1), min(column, width - 1), c % channels])
                for row in (2 * y, 2 * y + 1)
                for column in (2 * x, 2 * x + 1)
            ]
            means.append((sum(block) << parameters.guard) >> 2 if has else 0)
        expected[len(cycles) + 3] = means
        edges = dict(edge_row=2 * y + 1 == height, edge_column=2 * x + 1 == width)
        ends = dict(position_end=last, row_end=last and x == columns - 1)
        halves = parameters.halves == 2
        token = dict(valid=1, shortcut=has, odd=first // pe % 2 if halves else 0)
        idle = 2 * ((first + pe) % 16 == 0 and pe == 1) if halves else 1
        cycles += [[(dut.token, token | ends | edges)], *[[(dut.token, {})]] * idle]
    samples = []

    def probe(ctx):
        return [ctx.get(dut.residual[channel][0]) for channel in range(pe)]

    async def bench(ctx):
        ctx.set(source.allow, 1)
        samples.extend(await play(ctx, [*cycles, [], [], []], probe))

    simulate(m, bench)
    assert {cycle: samples[cycle] for cycle in expected} == expected
