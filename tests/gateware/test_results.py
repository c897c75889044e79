"""Logits in; logits, class and cycles out."""

import random

import pytest

from bnnhw.gateware.results import Results
from tests.gateware.bench import simulate
from tests.gateware.streams import receive_words, send

FRAMES = [
    ([5, -3, 5], 0),  # the first of equals
    ([-9, -2, -2], 1),  # all negative
    ([0, -1, 2**31 - 1], 2),
    ([-(2**31), -(2**31), -(2**31)], 0),
    ([-7, 3, 2], 1),  # nothing of an earlier frame's greatest is left
]
RANDOM = random.Random(1)
for _ in range(20):  # far from each other, and near
    width = RANDOM.choice([2, 6, 32])
    drawn = [RANDOM.randrange(-(1 << width - 1), 1 << width - 1) for _ in range(3)]
    FRAMES.append((drawn, drawn.index(max(drawn))))


def compared(dut, ended):
    """A bench that notes when the last logit of each frame is compared.

    That is in the cycle after its last bit, or 32 after that if it is the greatest.
    """

    async def bench(ctx):
        now, taken = 0, 0
        async for _, _, valid, ready in ctx.tick().sample(dut.o.valid, dut.o.ready):
            if valid and ready:
                taken += 1
                if taken % (32 * 5) == 32 * 3:
                    ended.append(now + (32 if FRAMES[len(ended)][1] == 2 else 1))
            now += 1

    return bench


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_logits_class_and_cycles(stall):
    """Cycles: from the first with `complete` until the last logit is compared."""
    dut = Results(classes=3)
    got, begun, ended = [], [], []

    async def watch(ctx):
        """Notes the cycles with a rise of `complete`."""
        now, before = 0, 0
        async for _, _, complete in ctx.tick().sample(dut.complete):
            if complete and not before:
                begun.append(now)
            now, before = now + 1, complete

    async def feed(ctx):
        rng = random.Random(0)
        for frame, (logits, _) in enumerate(FRAMES):
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
            got.append(await receive_words(ctx, dut.o, 5, stall=stall, seed=frame))

    simulate(dut, feed, drain, background=[watch, compared(dut, ended)])
    assert got == [
        [*logits, label, end - begin]
        for (logits, label), begin, end in zip(FRAMES, begun, ended, strict=True)
    ]


@pytest.mark.parametrize("stall", [0.0, 0.9])
def test_cycles_of_a_frame_that_waited_count_from_the_end_of_that_before(stall):
    """The next frame is complete, and computed, while results of the one before wait."""
    dut = Results(classes=3)
    got, ended = [], []

    async def feed(ctx):
        ctx.set(dut.complete, 1)
        for frame, (logits, _) in enumerate(FRAMES):
            await ctx.tick().repeat(2)
            ctx.set(dut.complete, 0)  # the stem is done
            await ctx.tick().repeat(3)
            ctx.set(dut.complete, frame < len(FRAMES) - 1)
            await send(ctx, dut.logits, logits)

    async def drain(ctx):
        for frame in range(len(FRAMES)):
            got.append(await receive_words(ctx, dut.o, 5, stall=stall, seed=frame))

    simulate(dut, feed, drain, background=[compared(dut, ended)], cycles=100_000)
    assert [frame[3] for frame in got] == [label for _, label in FRAMES]
    assert [frame[4] for frame in got] == [
        end - begin for end, begin in zip(ended, [0, *ended[:-1]], strict=True)
    ]
