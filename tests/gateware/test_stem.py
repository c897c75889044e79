"""The stem on the multiply-accumulators, row after row of an image that comes in."""

import random

import numpy as np
import pytest
from amaranth.lib.wiring import connect

from tests.gateware.bench import Memory, engine_parameters
from tests.gateware.dense_bench import BASE, Bench, pixel_words, stem_geometry, stem_sums


def stem_entries(weights):
    """For each four channels, each tap, each input channel: four channels' weights."""
    out, _, _, channels = weights.shape
    return [
        [weights[first + index, tap // 3, tap % 3, channel] for index in range(4)]
        for first in range(0, out, 4)
        for tap in range(9)
        for channel in range(channels)
    ]


STEMS = [  # height, width, channels, outputs, shifts of stem and shortcut, grants withheld
    (4, 3, 1, 16, 3, None, 0.0),
    (3, 4, 3, 16, 4, None, 0.5),
    (2, 2, 8, 16, 6, None, 0.7),
    (4, 2, 2, 32, 4, None, 0.3),
    (2, 3, 2, 16, 4, 7, 0.0),
    (3, 2, 3, 16, 5, 20, 0.2),
    (2, 2, 3, 16, 6, 4, 0.0),
]


@pytest.mark.parametrize("pad", [(), (0, 255, 7, 128, 1, 200, 127, 60)], ids=["128", "own"])
@pytest.mark.parametrize(
    ("height", "width", "channels", "out", "pre_shift", "other", "withheld"), STEMS
)
def test_stem_waits_for_rows_and_sums_taps(
    height, width, channels, out, pre_shift, other, withheld, pad
):
    """Rows come in while the stem works; what is not received yet is junk in memory."""
    rng = np.random.default_rng(channels)
    image = rng.integers(0, 256, (height, width, channels))
    image[:2, :2] = 0
    weights = rng.integers(-127, 128, (out, 3, 3, channels))
    weights[0], weights[1] = 127, -127
    parameters = engine_parameters(
        image_height=height, image_width=width, image_channels=channels, pre_shift=pre_shift,
        weight_depth=512, passes=other is not None, shortcut_shift=other, sum_width=20,
        pad=pad[:channels],
    )  # fmt: skip
    bench = Bench(parameters, [], stem_entries(weights))
    dut, words = bench.dut, pixel_words(image)
    got = []

    async def deliver(ctx):
        pause = random.Random(height)
        for row in range(height):
            await ctx.tick().repeat(pause.randrange(1, 500))
            for index in range(row * width, (row + 1) * width):
                ctx.set(bench.memory.storage.data[BASE + index], words[index])
            ctx.set(dut.complete, row == height - 1)
            ctx.set(dut.received, row + 1)

    async def run(ctx):
        await bench.start(ctx, dut.start_stem, stem_geometry(height, width, out))
        token = None
        while ctx.get(dut.busy) or token is not None:
            if token is not None:
                got.append((token, ctx.get(dut.halves[0])))
            value = ctx.get(dut.token)
            token = (value.odd, value.group_end, value.position_end, value.row_end)
            token = token if value.valid else None
            await ctx.tick()

    bench.simulate(run, withheld=withheld, background=[deliver])
    expected = [
        ((c % 2, c % 16 == 15, c == out - 1, c == out - 1 and x == width - 1), int(half))
        for (_, x, c), half in np.ndenumerate(
            stem_sums(image, weights, pad[:channels]) >> pre_shift
        )
    ]
    assert len(got) == len(expected)
    for index, (left, right) in enumerate(zip(got, expected, strict=True)):
        assert left == right, np.unravel_index(index, (height, width, out))


@pytest.mark.parametrize("pad", [(), (0, 255, 7), (1, 200, 128)])
def test_two_channels_in_parallel_with_an_image_beside_the_stream(pad):
    rng = np.random.default_rng(3)
    height, width, channels, out = 3, 4, 3, 16
    image = rng.integers(0, 256, (height, width, channels))
    weights = rng.integers(-127, 128, (out, 3, 3, channels))
    parameters = engine_parameters(
        image_height=height, image_width=width, image_channels=channels, pre_shift=5,
        weight_depth=512, pe=2, pad=pad, sum_width=20,
    )  # fmt: skip
    entries = [
        [weights[first + 2 * token + side, tap // 3, tap % 3, colour] for token in range(4)]
        for first in range(0, out, 8)
        for tap in range(9)
        for colour in range(channels)
        for side in range(2)
    ]
    bench = Bench(parameters, [], entries)
    bench.module.submodules.image = memory = Memory([0] * BASE + pixel_words(image), depth=256)
    connect(bench.module, bench.dut.image, memory.fetch)
    dut, got = bench.dut, []

    async def run(ctx):
        ctx.set(memory.allow, 1)
        ctx.set(dut.complete, 1)
        await bench.start(ctx, dut.start_stem, stem_geometry(height, width, out))
        valid = False
        while ctx.get(dut.busy) or valid:
            if valid:
                got.extend(ctx.get(half) for half in dut.halves)
            valid = ctx.get(dut.token).valid
            await ctx.tick()

    bench.simulate(run, withheld=0.0)
    assert got == (stem_sums(image, weights, pad) >> 5).reshape(-1).tolist()
