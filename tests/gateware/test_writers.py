"""What the writers leave in memory, read back as bnnhw.compiler.layout says."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.compiler import layout
from bnnhw.gateware.writers import BitWriter, BlockAddress, ResidualWriter
from tests.gateware.bench import JUNK, Memory, engine_parameters, narrow, play, simulate, whole

CASES = [  # height, width, channels; cycles from a result to the next
    ((4, 4, 16), 1), ((2, 6, 32), 3), ((5, 3, 16), 2), ((3, 2, 48), 3), ((2, 7, 16), 1),
]  # fmt: skip
BASE = 3


def positions(height, width, single):
    """Places (y, x) of each position's lanes in order, and whether it ends a row."""
    step = 1 if single else 2
    for y in range(0, height, step):
        for x in range(0, width, step):
            lanes = [(y, x)] * 4 if single else [(y + i // 2, x + i % 2) for i in range(4)]
            yield lanes, x + step >= width


def results(values, single, pe):
    """Values (H, W, C) in the order of the lanes' results: (pe x four values, token), 0 outside."""
    height, width, channels = values.shape
    for lanes, row_end in positions(height, width, single):
        for first in range(0, channels, pe):
            last = first + pe - 1
            end = last == channels - 1
            token = dict(
                valid=1, odd=first // pe % 2, group_end=last % 16 == 15, position_end=end,
                row_end=end and row_end,
            )  # fmt: skip
            yield (
                [
                    [int(values[y, x, c]) if y < height and x < width else 0 for y, x in lanes]
                    for c in range(first, first + pe)
                ],
                token,
            )


def back(width, groups):
    """The walk of single pixels: after left columns to the block's first group, after upper rows to
    the row's."""
    return {"position": -groups, "row": -groups * -(-width // 2)}


@pytest.mark.parametrize("unit", [1, 2, 8, 16])
@pytest.mark.parametrize("single", [0, 1])
@pytest.mark.parametrize(("height", "width", "groups"), [(4, 4, 2), (5, 3, 1), (3, 6, 3)])
def test_block_address_finds_every_word(height, width, groups, single, unit):
    dut = BlockAddress(unit=unit)
    columns, words = -(-width // 2), unit * groups
    expected, cycles = [], []
    rng = random.Random(words)
    for base in (7, 40):  # a load begins anew, wherever the last map ended
        cycles.append([
            (dut.load, 1), (dut.base, base), (dut.single, single), (dut.advance, 0),
            (dut.walk, back(width, groups) if single else {}),
        ])  # fmt: skip
        for lanes, row_end in positions(height, width, single):
            y, x = lanes[0]
            for word in range(words):
                end = word == words - 1
                idle = [(dut.load, 0), (dut.advance, 0), (dut.position_end, 1), (dut.row_end, 1)]
                cycles += [idle] * rng.randrange(3)
                expected.append((
                    len(cycles), base + (y // 2 * columns + x // 2) * words + word,
                    2 * (y % 2) + x % 2 if single else 0,
                ))  # fmt: skip
                cycles.append([
                    (dut.load, 0), (dut.advance, 1), (dut.position_end, end),
                    (dut.row_end, end and row_end),
                ])  # fmt: skip
    samples = []

    async def bench(ctx):
        samples.extend(
            await play(ctx, cycles, lambda ctx: (ctx.get(dut.address), ctx.get(dut.lane)))
        )

    simulate(dut, bench)
    assert [(at, *samples[at]) for at, _, _ in expected] == expected


@pytest.mark.parametrize("unit", [1, 2, 8, 16])
@pytest.mark.parametrize(("first", "tile", "groups"), [(0, 2, 6), (2, 3, 8), (5, 1, 6)])
def test_block_address_finds_the_words_of_a_tile(first, tile, groups, unit):
    """Of each position's groups a tile has some, from the first on."""
    height, width, base = 4, 6, 9
    dut = BlockAddress(unit=unit)
    cycles, expected = [], []
    over = groups - tile
    cycles.append([
        (dut.load, 1), (dut.base, base + unit * first), (dut.walk, {"position": over, "row": over})
    ])  # fmt: skip
    for lanes, row_end in positions(height, width, 0):
        y, x = lanes[0]
        for word in range(unit * tile):
            end = word == unit * tile - 1
            block = y // 2 * (width // 2) + x // 2
            expected.append(base + unit * (block * groups + first) + word)
            cycles.append([
                (dut.load, 0), (dut.advance, 1), (dut.position_end, end),
                (dut.row_end, end and row_end),
            ])  # fmt: skip
    samples = []

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.address)))

    simulate(dut, bench)
    assert samples[1:] == expected


@pytest.mark.parametrize("unit", [1, 2, 8])
@pytest.mark.parametrize(("gap", "groups"), [(3, 2), (1, 1), (70, 5)])
def test_block_address_leaves_a_gap_after_each_row_of_a_strip(gap, groups, unit):
    dut = BlockAddress(unit=unit)
    expected, cycles = [], []
    words = groups * unit
    for strip in (1, 0):
        walk = {"row": gap * strip}
        cycles.append([(dut.load, 1), (dut.base, 7), (dut.walk, walk), (dut.advance, 0)])
        at = 7
        for _ in range(3):
            for index in range(4 * words):
                end = index % words == words - 1
                expected.append((len(cycles), at))
                row_end = index == 4 * words - 1
                cycles.append([
                    (dut.load, 0), (dut.advance, 1), (dut.position_end, end),
                    (dut.row_end, row_end),
                ])  # fmt: skip
                at += 1 + gap * unit * (strip and row_end)
    samples = []

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.address)))

    simulate(dut, bench)
    assert [(at, samples[at]) for at, _ in expected] == expected


async def write(ctx, dut, values, allow, *, single, pace, set_values, rng, pe):
    """Feed results `pace` cycles apart, granted in one of these at random; the last at latest."""
    for lanes, token in results(values, single, pe):
        ctx.set(dut.token, token)
        set_values(ctx, lanes)
        granted = rng.randrange(pace)
        for cycle in range(pace):
            ctx.set(dut.fresh, cycle == 0)
            ctx.set(allow, cycle >= granted)
            await ctx.tick()


def fill(dut, values, *, single, pace, set_values, depth, enable=1, pe=1):
    """Memory after `values` have gone through a writer: a list of words."""
    width = len(dut.memory.data)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(depth=depth, width=width)
    connect(m, dut.memory, memory.write)
    left = []

    async def bench(ctx):
        ctx.set(dut.enable, enable)
        ctx.set(dut.single, single)
        ctx.set(dut.walk, back(values.shape[1], values.shape[2] // 16) if single else {})
        ctx.set(dut.base, BASE)
        ctx.set(dut.load, 1)
        await ctx.tick()
        ctx.set(dut.load, 0)
        await write(
            ctx, dut, values, memory.allow, single=single, pace=pace, set_values=set_values,
            rng=random.Random(pace), pe=pe,
        )  # fmt: skip
        ctx.set(dut.fresh, 0)
        ctx.set(memory.allow, 1)
        await ctx.tick().repeat(3)
        left.extend(memory.contents(ctx))

    simulate(m, bench)
    return left


def check_lanes_outside(words, height, width, *, single, slot, zero):
    """Lanes outside an odd map are as given, 0, or, with `single`, never written."""
    blocks = layout.blocks(height, width)
    per_block = len(words) // (blocks[0] * blocks[1])
    for index, word in enumerate(words):
        row, column = divmod(index // per_block, blocks[1])
        for lane in range(4):
            if 2 * row + lane // 2 < height and 2 * column + lane % 2 < width:
                continue
            for first in range(slot * lane, 64, 4 * slot):
                mask = ((1 << slot) - 1) << first
                assert word & mask == (JUNK if single else zero) & mask, (index, lane)


@pytest.mark.parametrize("single", [0, 1])
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize("pe", [1, 2, 4, 8])
@pytest.mark.parametrize(("size", "pace"), CASES)
def test_residual_writer(size, width, single, pace, pe):
    limit = 1 << (width - 1)
    values = np.random.default_rng(width).integers(-limit, limit, size)
    parameters = engine_parameters(width, pe=pe)
    dut = ResidualWriter(parameters)
    mask = (1 << parameters.slot_width) - 1

    def set_values(ctx, channels):
        ctx.set(dut.y, [[value & mask for value in lanes] for lanes in channels])

    count = layout.residual_words(*size, parameters.per_word)
    words = fill(
        dut, values, single=single, pace=pace, set_values=set_values, depth=BASE + count + 2, pe=pe
    )
    words = narrow(words, pe)
    inside = words[pe * BASE : -2 * pe]
    assert len(inside) == pe * count
    used = np.array(inside, np.uint64)
    assert (layout.unpack_residuals(used, *size, width) == values).all()
    assert words[: pe * BASE] + words[-2 * pe :] == [JUNK] * pe * (BASE + 2)
    check_lanes_outside(inside, *size[:2], single=single, slot=parameters.slot_width, zero=0)


@pytest.mark.parametrize("single", [0, 1])
@pytest.mark.parametrize("pe", [1, 2, 4, 8])
@pytest.mark.parametrize(("size", "pace"), CASES)
def test_bit_writer(size, single, pace, pe):
    bits = np.random.default_rng(pace).integers(0, 2, size)
    dut = BitWriter(pe=pe)

    def set_values(ctx, channels):
        ctx.set(dut.bits, [whole(lanes) for lanes in channels])

    count = layout.bit_words(*size)
    words = fill(
        dut, bits, single=single, pace=pace, set_values=set_values, depth=BASE + count + 2, pe=pe
    )
    used = np.array(words[BASE:-2], np.uint64)
    assert (layout.unpack_bits(used, *size) == bits).all()
    assert words[:BASE] + words[-2:] == [JUNK] * (BASE + 2)
    check_lanes_outside(words[BASE:-2], *size[:2], single=single, slot=16, zero=0)


@pytest.mark.parametrize("kind", ["residual", "bit"])
def test_disabled_writers_write_nothing(kind):
    values = np.ones((2, 2, 16), int)
    dut = ResidualWriter(engine_parameters()) if kind == "residual" else BitWriter()

    def set_values(ctx, channels):
        if kind == "residual":
            ctx.set(dut.y, channels)
        else:
            ctx.set(dut.bits, [15])

    words = fill(dut, values, single=0, pace=2, set_values=set_values, depth=32, enable=0)
    assert words == [JUNK] * 32


@pytest.mark.parametrize("apart", [1, 2, 3])
def test_numbers_of_a_gates_layer_lie_apart(apart):
    """Four equal lanes a word; the words between are not touched."""
    dut = ResidualWriter(engine_parameters(passes=True, gates=True))
    gates = np.random.default_rng(1).integers(0, 256, (1, 1, 16))

    def set_values(ctx, channels):
        ctx.set(dut.apart, apart)
        ctx.set(dut.y, channels)

    words = fill(
        dut, gates.repeat(2, 0).repeat(2, 1), single=0, pace=1, set_values=set_values, depth=64
    )
    expected = [JUNK] * 64
    for channel, gate in enumerate(gates.flat):
        expected[BASE + apart * channel] = int(gate) * 0x0001_0001_0001_0001
    assert words == expected
