"""Logits in; logits, class and cycles out."""

import random

import pytest

from bnnhw.gateware.results import Results
from tests.gateware.bench import simulate
from tests.gateware.streams import receive, send

FRAMES = [
    ([5, -3, 5], 0),  # the first of equals
    ([-9, -2, -2], 1),  # all negative
    ([0, -1, 2**31 - 1], 2),
    ([-(2**31), -(2**31), -(2**31)], 0),
    ([-7, 3, 2], 1),  # nothing of an earlier frame's greatest is left
]


def frames_of(width):
    """With the greatest and the least number of so many bits."""
    limit = 1 << (width - 1)
    return [([max(-limit, min(limit - 1, x)) for x in logits], label) for logits, label in FRAMES]


@pytest.mark.parametrize("width", [9, 29, 32])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_logits_class_and_cycles(stall, width):
    """Cycles: from the first with `complete` to that of the last logit, taken a cycle later."""
    dut = Results(classes=3, width=width)
    got, begun, ended = [], [], []

    async def watch(ctx):
        """Notes the cycles with a rise of `complete` and those with a logit taken."""
        now, before = 0, 0
        ports = (dut.complete, dut.logits.valid, dut.logits.ready)
        async for _, _, complete, valid, ready in ctx.tick().sample(*ports):
            if complete and not before:
                begun.append(now)
            if valid and ready:
                ended.append(now)
            now, before = now + 1, complete

    async def feed(ctx):
        rng = random.Random(0)
        for frame, (logits, _) in enumerate(frames_of(width)):
            while len(got) < frame:  # the frame before is out
                await ctx.tick()
            await ctx.tick().repeat(3)
            assert not ctx.get(dut.timing)
            ctx.set(dut.complete, 1)
            await ctx.tick().repeat(rng.randrange(1, 20))
            assert ctx.get(dut.timing)
            ctx.set(dut.complete, 0)
            await send(ctx, dut.logits, logits, stall=0.5, seed=frame)

    async def drain(ctx):
        for frame in range(len(FRAMES)):
            got.append(await receive(ctx, dut.o, 5, stall=stall, seed=frame))

    simulate(dut, feed, drain, background=[watch])
    assert got == [
        [*logits, label, end - 1 - begin]
        for (logits, label), begin, end in zip(frames_of(width), begun, ended[2::3], strict=True)
    ]


@pytest.mark.parametrize("width", [9, 29, 32])
@pytest.mark.parametrize("stall", [0.0, 0.9])
def test_cycles_of_a_frame_that_waited_count_from_the_last_logit_before(stall, width):
    """The next frame is complete, and computed, while results of the one before wait."""
    dut = Results(classes=3, width=width)
    got, ended = [], []

    async def watch(ctx):
        now = 0
        ports = (dut.logits.valid, dut.logits.ready)
        async for _, _, valid, ready in ctx.tick().sample(*ports):
            if valid and ready:
                ended.append(now)
            now += 1

    async def feed(ctx):
        ctx.set(dut.complete, 1)
        for frame, (logits, _) in enumerate(frames_of(width)):
            await ctx.tick().repeat(2)
            ctx.set(dut.complete, 0)  # the stem is done
            await ctx.tick().repeat(3)
            ctx.set(dut.complete, frame < len(FRAMES) - 1)
            await send(ctx, dut.logits, logits)

    async def drain(ctx):
        for frame in range(len(FRAMES)):
            got.append(await receive(ctx, dut.o, 5, stall=stall, seed=frame))

    simulate(dut, feed, drain, background=[watch])
    assert [frame[3] for frame in got] == [label for _, label in frames_of(width)]
    lasts = ended[2::3]
    assert [frame[4] for frame in got] == [
        end - begin for end, begin in zip(lasts, [1, *lasts[:-1]], strict=True)
    ]
