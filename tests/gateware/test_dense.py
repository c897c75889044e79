"""The multiply-accumulators: sums until they are cleared, and stem and head in turn."""

import numpy as np
import pytest

from bnnhw.gateware.macs import MacBank, MacFormat
from tests.gateware.bench import engine_parameters, play, residual_words, simulate
from tests.gateware.dense_bench import (
    Bench,
    head_case,
    head_entries,
    head_geometry,
    pixel_words,
    stem_geometry,
    stem_sums,
)
from tests.gateware.streams import receive


def mac_cycles(rng, port, x_width, lengths):
    """Settings by cycle of sums of these lengths, and when which sums must be there."""
    limit = 1 << (x_width - 1)
    cycles, expected = [], []
    for length in lengths:
        x = rng.integers(-limit, limit, length) * (rng.random(length) < 0.8)
        weights = rng.integers(-128, 128, (length, 4))
        x[-1], weights[-1] = -limit, [-128, 127, -1, 1]
        for value, row in zip(x.tolist(), weights.tolist(), strict=True):
            cycles.append([(port.clear, 0), (port.x, value), (port.weights, row)])
        cycles.append([(port.x, 0), (port.weights, [99] * 4)])
        cycles.append([(port.clear, 1)])
        expected.append((len(cycles) - 1, (x @ weights).tolist()))
    return cycles, expected


@pytest.mark.parametrize("bias_shift", [8, 12])
def test_mac_bank_adds_products_until_cleared(bias_shift):
    form = MacFormat.of(engine_parameters(bias_shift=bias_shift))
    assert form.x_width == max(10, bias_shift + 2)
    dut = MacBank(form)
    rng = np.random.default_rng(bias_shift)
    cycles, expected = mac_cycles(rng, dut.macs, form.x_width, (1, 5, 60))
    samples = []

    async def bench(ctx):
        probe = [dut.macs.sums[index] for index in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(total) for total in probe]))

    simulate(dut, bench)
    assert [(at, samples[at]) for at, _ in expected] == expected


def test_a_stem_follows_a_head_and_a_head_a_stem():
    """The order of frames: what either leaves behind does not show in the other."""
    rng = np.random.default_rng(5)
    parameters = engine_parameters(image_height=2, image_width=3, classes=3, bias_shift=2)
    image = rng.integers(0, 256, (2, 3, 1))
    values, weights, mantissa = head_case(rng, 2, 2, 16, 3, 8)
    # Both read the same entries: the stem's are 36, the head's 17.
    entries = rng.integers(-127, 128, (36, 4))
    entries[:17] = head_entries(weights, mantissa)
    stem_weights = entries.reshape(4, 9, 4).transpose(0, 2, 1).reshape(16, 3, 3, 1)
    words = residual_words(values, 8) + pixel_words(image)
    bench = Bench(parameters, words, entries)
    dut = bench.dut
    logits, halves = [], []

    async def stem(ctx):
        await bench.start(
            ctx, dut.start_stem, stem_geometry(2, 3, 16), base=len(words) - 6, complete=1
        )
        while ctx.get(dut.busy):
            valid = ctx.get(dut.token.valid)
            await ctx.tick()
            if valid:
                halves.append(ctx.get(dut.halves[0]))

    async def head(ctx):
        await bench.start(
            ctx, dut.start_head, head_geometry(16, 3), base=0, head_words=len(words) - 7
        )
        logits.append(await receive(ctx, dut.logits, 3))
        await ctx.tick()

    async def run(ctx):
        for part in (stem, head, head, stem, head):
            await part(ctx)

    bench.simulate(run, withheld=0.2)
    assert halves == stem_sums(image, stem_weights).reshape(-1).tolist() * 2
    assert logits == [(weights @ values.sum((0, 1)) + mantissa * 4).tolist()] * 3
