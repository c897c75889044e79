"""The head on the multiply-accumulators: the mean's sums, the bias, steps of some classes."""

import numpy as np
import pytest

from tests.gateware.bench import engine_parameters, residual_words
from tests.gateware.dense_bench import Bench, head_case, head_entries, head_geometry
from tests.gateware.streams import receive

HEADS = [  # height, width, channels, classes, residual_width, bias_shift, withheld, stalled
    (2, 2, 16, 2, 8, 0, 0.0, 0.0),
    (4, 4, 16, 10, 8, 7, 0.5, 0.5),
    (3, 5, 32, 5, 8, 3, 0.2, 0.95),
    (2, 4, 32, 4, 12, 14, 0.4, 0.0),
    (3, 2, 16, 9, 12, 5, 0.0, 0.8),
]


@pytest.mark.parametrize(
    ("height", "width", "channels", "classes", "residual_width", "bias_shift", "withheld", "stall"),
    HEADS,
)
@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize(("pe", "tokens"), [(1, 4), (1, 2), (2, 4), (4, 2), (4, 4), (8, 2), (8, 1)])
def test_head_pools_and_adds_the_bias(
    height, width, channels, classes, residual_width, bias_shift, withheld, stall, passes, pe,
    tokens,
):  # fmt: skip
    """Twice, on one map each, so that nothing of the first may be left for the second."""
    rng = np.random.default_rng(classes)
    shape = (height, width, channels, classes, residual_width)
    parameters = engine_parameters(
        residual_width, bias_shift=bias_shift, classes=classes, passes=passes, pe=pe, tokens=tokens
    )
    first, weights, mantissa = head_case(rng, *shape)
    second = head_case(rng, *shape)[0]
    slot = parameters.slot_width
    words = [residual_words(v << parameters.slot_fraction, slot) for v in (first, second)]
    entries = head_entries(weights, mantissa, pe, tokens)
    bench = Bench(parameters, words[0] + words[1], entries, depth=512)
    dut = bench.dut
    got, gaps = [], []

    async def run(ctx):
        count = len(words[0]) // pe
        for base in (0, count):
            geometry = head_geometry(channels, classes, parameters.macs)
            await bench.start(
                ctx, dut.start_head, geometry, base=base, head_words=count - 1,
            )  # fmt: skip
            got.append(await receive(ctx, dut.logits, classes, stall=stall, seed=base))
            for _ in range(3):
                gaps.append((ctx.get(dut.busy), ctx.get(dut.logits.valid)))
                await ctx.tick()

    bench.simulate(run, withheld=withheld)
    for values, logits in zip((first, second), got, strict=True):
        expected = weights @ values.sum((0, 1)) + (mantissa << bias_shift)
        assert logits == expected.tolist()
    assert gaps == [(0, 0)] * 6


@pytest.mark.parametrize(("pe", "tokens"), [(1, 4), (4, 4), (8, 2)])
def test_resident_weights_of_a_head_lie_after_others(pe, tokens):
    """Every block of every walk reads them from `entry` on."""
    rng = np.random.default_rng(pe)
    classes, before = 19, 7
    parameters = engine_parameters(
        classes=classes, bias_shift=3, pe=pe, tokens=tokens, resident=True
    )
    values, weights, mantissa = head_case(rng, 4, 4, 16, classes, 8)
    words = residual_words(values, 8)
    entries = [*rng.integers(-127, 128, (before * pe, 4))]
    entries += head_entries(weights, mantissa, pe, tokens)
    bench = Bench(parameters, words, entries)
    got = []

    async def run(ctx):
        for _ in range(2):
            await bench.start(
                ctx, bench.dut.start_head, head_geometry(16, classes, parameters.macs), base=0,
                head_words=len(words) // pe - 1, entry=before,
            )  # fmt: skip
            got.extend(await receive(ctx, bench.dut.logits, classes))
            await ctx.tick()

    bench.simulate(run, withheld=0.2)
    assert got == (weights @ values.sum((0, 1)) + (mantissa << 3)).tolist() * 2


def test_a_head_in_several_steps_goes_on_with_the_next_class():
    """Each step has its own weights in the buffer; after the last class comes the first."""
    rng = np.random.default_rng(8)
    classes, fours = 10, (1, 2)
    parameters = engine_parameters(classes=classes, bias_shift=4)
    values, weights, mantissa = head_case(rng, 2, 4, 16, classes, 8)
    words = residual_words(values, 8)
    entries = head_entries(weights, mantissa)
    bench = Bench(parameters, words, [])
    dut = bench.dut
    got = []

    async def run(ctx):
        for _ in range(2):
            left = entries
            for quads in fours:
                bench.load(ctx, left[: 17 * quads])
                left = left[17 * quads :]
                geometry = head_geometry(16, 4 * quads)
                await bench.start(ctx, dut.start_head, geometry, base=0, head_words=len(words) - 1)
                count = min(4 * quads, classes - len(got) % classes)
                got.extend(await receive(ctx, dut.logits, count, stall=0.3))
                await ctx.tick()
                for _ in range(20):
                    assert not ctx.get(dut.busy) and not ctx.get(dut.logits.valid)
                    await ctx.tick()

    bench.simulate(run, withheld=0.3)
    assert got == (weights @ values.sum((0, 1)) + mantissa * 16).tolist() * 2
