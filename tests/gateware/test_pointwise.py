"""Pointwise layers of 8 bits: a walk that holds for the sums, and sums that wait for the walk."""

import random

import numpy as np
import pytest

from bnnhw.gateware.issue import ConvolutionIssue
from bnnhw.gateware.program import Kind
from tests.gateware.bench import JUNK, engine_parameters, simulate
from tests.gateware.dense_bench import BASE, Bench, head_entries, head_geometry
from tests.gateware.streams import receive


def pointwise_words(values):
    """16-bit residuals of the upper left pixel of each block; its other lanes are junk."""
    return [(int(value) & 0xFFFF) | (JUNK >> 16 << 16) for value in values.reshape(-1)]


def pointwise_entries(weights):
    """For each four outputs, each two inputs: four outputs' weights of one, then of the other."""
    out, inputs = weights.shape
    return [
        [*weights[quad : quad + 4, i], *weights[quad : quad + 4, i + 1]]
        for quad in range(0, out, 4)
        for i in range(0, inputs, 2)
    ]


POINTWISE = [  # rows and columns of blocks, inputs, outputs, shift, withheld, levels
    (2, 3, 16, 16, 3, 0.0, 0), (1, 2, 32, 16, 5, 0.5, 32), (2, 1, 16, 48, 4, 0.8, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "columns", "inputs", "out", "shift", "withheld", "levels"), POINTWISE
)
def test_pointwise_sums_wait_for_the_issue(rows, columns, inputs, out, shift, withheld, levels):
    """Twice, then a head: each sum is there a cycle after its channel is issued."""
    rng = np.random.default_rng(out)
    parameters = engine_parameters(
        residual_width=8, passes=True, shortcut_shift=shift, levels=levels, classes=4,
        weight_depth=512, pre_shift=7 - shift, sum_width=21,
    )  # fmt: skip
    values = rng.integers(-128, 128, (rows, columns, inputs))
    values[0, 0] = -128
    weights = rng.integers(-127, 128, (out, inputs))
    weights[0], weights[1] = 127, -127
    bench = Bench(parameters, [], pointwise_entries(weights), depth=512)
    dut, words = bench.dut, pointwise_words(values << parameters.slot_fraction)
    got, logits = [], []
    geometry = dict(kind=Kind.POINTWISE, single=1, columns=columns - 1, rows=rows - 1,
                    groups=out // 16 - 1)  # fmt: skip
    pause = random.Random(out)

    async def issue(ctx, channel):
        """A channel, then the cycle in which its sum is there."""
        ctx.set(dut.issued, 1)
        await ctx.tick()
        ctx.set(dut.issued, 0)
        got.append(ctx.get(dut.halves[0]))
        ctx.set(dut.quarter, (channel + 1) % 4)
        await ctx.tick().repeat(1 if channel % 4 != 3 else pause.randrange(1, 9))

    async def step(ctx):
        await bench.start(ctx, dut.start_pointwise, geometry, head_words=inputs - 1)
        assert ctx.get(dut.hold)
        for position in range(rows * columns):
            ctx.set(dut.last_position, position == rows * columns - 1)
            for channel in range(out):
                ctx.set(dut.last_four, channel >= out - 4)
                while channel % 4 == 0 and ctx.get(dut.hold):
                    await ctx.tick()
                await issue(ctx, channel)
        for _ in range(20):
            assert not ctx.get(dut.busy) and not ctx.get(dut.fetch.request)
            assert not ctx.get(dut.token.valid) and not ctx.get(dut.hold)
            await ctx.tick()

    async def run(ctx):
        for index, word in enumerate(words):
            ctx.set(bench.memory.storage.data[BASE + index], word)
        await step(ctx)
        await step(ctx)
        bench.load(ctx, [[*row, 0, 0, 0, 0] for row in head_entries(weights[:4, :16], [0] * 4)])
        await bench.start(
            ctx, dut.start_head, head_geometry(16, 4), base=BASE, head_words=15,
        )  # fmt: skip
        logits.extend(await receive(ctx, dut.logits, 4))

    bench.simulate(run, withheld=withheld)
    expected = (values.reshape(-1, inputs) @ weights.T >> shift).reshape(-1).tolist()
    assert got == expected * 2
    junk = [JUNK >> 16 * lane + parameters.slot_fraction & 0xFF for lane in range(1, 4)]
    others = sum(byte - 256 * (byte > 127) for byte in junk)
    assert logits == (weights[:4, :16] @ (values[0, 0, :16] + others)).tolist()


def test_a_pointwise_walk_holds_before_each_four_channels():
    """No window is loaded; channels come two cycles apart, in order, and none while on hold."""
    dut = ConvolutionIssue(engine_parameters(8, passes=True, shortcut_shift=1))
    rng, got = np.random.default_rng(2), []
    geometry = dict(kind=Kind.POINTWISE, single=1, columns=2, rows=1, groups=1)

    async def bench(ctx):
        ctx.set(dut.geometry, geometry)
        ctx.set(dut.pointwise, 1)
        ctx.set(dut.hold, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        wait, since = 9, 9
        while ctx.get(dut.busy):
            token = ctx.get(dut.token)
            since += 1
            if token.valid:
                assert not wait and since >= 2
                place = (ctx.get(dut.quarter), ctx.get(dut.last_four), ctx.get(dut.last_position))
                got.append((*place, token.odd, token.group_end, token.position_end, token.row_end))
                wait = int(rng.integers(1, 30)) if place[0] == 3 else 0
                since = 0
            else:
                wait = max(0, wait - 1)
            await ctx.tick()
            ctx.set(dut.hold, wait > 0)

    simulate(dut, bench)
    expected = [
        (
            channel % 4, channel >= 28, position == 5, channel % 2, channel % 16 == 15,
            channel == 31, channel == 31 and position % 3 == 2,
        )
        for position in range(6)
        for channel in range(32)
    ]  # fmt: skip
    assert got == expected
