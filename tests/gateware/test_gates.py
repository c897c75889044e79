"""Layers of gates on the multiply-accumulators: sums of a map as tokens, saturated."""

import numpy as np
import pytest

from bnnhw.gateware.program import Kind
from tests.gateware.bench import engine_parameters, residual_words
from tests.gateware.dense_bench import Bench, head_entries, head_geometry
from tests.gateware.streams import receive

LAYERS = [  # height, width, channels, outputs, residual_width, guard, probability of withholding
    (4, 4, 16, 4, 8, 4, 0.0),
    (3, 5, 32, 12, 8, 4, 0.5),
    (2, 2, 48, 8, 12, 3, 0.3),
    (2, 4, 16, 4, 8, 1, 0.2),
]


def layer_sums(values, weights, drop):
    """Sums of blocks of four, of which `drop` bits are dropped, times weights (outputs, C)."""
    even = np.zeros((-(-values.shape[0] // 2) * 2, -(-values.shape[1] // 2) * 2, values.shape[2]))
    even[: values.shape[0], : values.shape[1]] = values
    blocks = even.reshape(len(even) // 2, 2, -1, 2, values.shape[2]).sum((1, 3)).astype(int)
    return weights @ (blocks // 2**drop).sum((0, 1))


@pytest.mark.parametrize(
    ("height", "width", "channels", "outputs", "residual_width", "guard", "withheld"), LAYERS
)
def test_a_gates_layer_gives_saturated_sums_as_tokens(
    height, width, channels, outputs, residual_width, guard, withheld
):
    """Twice, with a head between them, which takes the bits above the guard as ever."""
    rng = np.random.default_rng(outputs)
    parameters = engine_parameters(
        residual_width, guard=guard, passes=True, gates=True, classes=2, bias_shift=3, pre_shift=3
    )
    values = rng.integers(-32768, 32768, (height, width, channels)) >> 3
    values[..., 0], values[..., 1] = -32768, 32767
    weights = rng.integers(-127, 128, (outputs, channels))
    weights[0, 2:], weights[1, :2] = 0, 0
    limit = 1 << (residual_width - 1)
    stream = rng.integers(-limit, limit, (height, width, channels))
    head, mantissa = rng.integers(-127, 128, (2, channels)), rng.integers(-127, 128, 2)
    maps = [residual_words(values, 16), residual_words(stream << guard, 16)]
    entries = [weights[first : first + 4, c] for first in range(0, outputs, 4)
               for c in range(channels)]  # fmt: skip
    bench = Bench(parameters, maps[0] + maps[1], [], depth=512)
    dut = bench.dut
    halves, logits = [], []

    async def layer(ctx):
        bench.load(ctx, entries)
        geometry = dict(kind=Kind.HEAD, keep=1, groups=channels // 16 - 1, columns=outputs // 4 - 1)
        await bench.start(ctx, dut.start_head, geometry, base=0, head_words=len(maps[0]) - 1)
        ends, token = [], None
        while ctx.get(dut.busy) or token is not None:
            assert not ctx.get(dut.logits.valid)
            if token is not None:
                halves.append(ctx.get(dut.halves[0]))
                ends.append(token.position_end)
            token = ctx.get(dut.token)
            token = token if token.valid else None
            await ctx.tick()
        assert ends == [0] * (outputs - 1) + [1]

    async def run(ctx):
        await layer(ctx)
        bench.load(ctx, head_entries(head, mantissa))
        geometry = head_geometry(channels, 2)
        await bench.start(
            ctx, dut.start_head, geometry, base=len(maps[0]), head_words=len(maps[1]) - 1
        )
        logits.extend(await receive(ctx, dut.logits, 2))
        await ctx.tick()
        await layer(ctx)

    bench.simulate(run, withheld=withheld)
    drop = max(2, residual_width + guard - 8)
    sums = layer_sums(values, weights, drop) // 256
    assert halves == np.clip(sums, -32768, 32767).tolist() * 2
    assert logits == (head @ stream.sum((0, 1)) + mantissa * 8).tolist()


def test_a_gates_layer_saturates_at_both_ends():
    parameters = engine_parameters(passes=True, gates=True)
    values = np.full((4, 4, 16), 32767)
    weights = np.zeros((4, 16), int)
    weights[0], weights[1], weights[2, :4], weights[3, :4] = 127, -127, 10, -10
    bench = Bench(parameters, residual_words(values, 16), [weights[:, c] for c in range(16)])
    dut, halves = bench.dut, []

    async def run(ctx):
        geometry = dict(kind=Kind.HEAD, keep=1)
        await bench.start(ctx, dut.start_head, geometry, base=0, head_words=63)
        valid = 0
        while ctx.get(dut.busy) or valid:
            if valid:
                halves.append(ctx.get(dut.halves[0]))
            valid = ctx.get(dut.token.valid)
            await ctx.tick()

    bench.simulate(run, withheld=0.0)
    assert halves[:2] == [32767, -32768]
    assert halves[2:] == [40 * 4 * (131068 // 16) // 256, -40 * 4 * (131068 // 16) // 256]
