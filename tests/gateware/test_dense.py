"""Stem and head on the multiply-accumulators, against numpy."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import memory
from amaranth.lib.wiring import connect

from gateware.dense import Dense, MacBank
from gateware.program import Kind
from tests.gateware.bench import (
    JUNK,
    Memory,
    engine_parameters,
    flip_at_random,
    play,
    residual_words,
    simulate,
)
from tests.gateware.streams import receive

BASE = 40


@pytest.mark.parametrize("x_width", [10, 14])
def test_mac_bank_adds_products_until_cleared(x_width):
    rng = np.random.default_rng(x_width)
    limit = 1 << (x_width - 1)
    dut = MacBank(x_width=x_width)
    cycles, expected = [], []
    for length in (1, 5, 60):
        x = rng.integers(-limit, limit, length) * (rng.random(length) < 0.8)
        weights = rng.integers(-128, 128, (length, 4))
        x[-1], weights[-1] = -limit, [-128, 127, -1, 1]
        for value, row in zip(x.tolist(), weights.tolist(), strict=True):
            cycles.append([(dut.clear, 0), (dut.x, value), (dut.weights, row)])
        cycles.append([(dut.x, 0), (dut.weights, [99] * 4)])
        cycles.append([(dut.clear, 1)])
        expected.append((len(cycles) - 1, (x @ weights).tolist()))
    samples = []

    async def bench(ctx):
        samples.extend(
            await play(ctx, cycles, lambda ctx: [ctx.get(dut.sums[index]) for index in range(4)])
        )

    simulate(dut, bench)
    assert [(at, samples[at]) for at, _ in expected] == expected


def bytes_of(weights):
    """Signed bytes as a number, the first lowest."""
    return sum((int(weight) & 255) << 8 * index for index, weight in enumerate(weights))


class Bench:
    """A Dense with its memory and a weight buffer of one cycle's latency.

    `weights` is a list of entries, each the weights of four outputs, pointwise of two inputs.
    """

    def __init__(self, parameters, words, weights, *, depth=256):
        self.dut = Dense(parameters)
        self.memory = Memory(words, depth=depth)
        self.module = m = Module()
        m.submodules.dut, m.submodules.memory = self.dut, self.memory
        m.submodules.weights = self.weights = memory.Memory(
            shape=len(self.dut.weights.as_value()),
            depth=parameters.weight_depth,
            init=[*map(bytes_of, weights)],
        )
        read = self.weights.read_port()
        m.d.comb += [read.addr.eq(self.dut.weight_entry), self.dut.weights.eq(read.data)]
        connect(m, self.dut.fetch, self.memory.fetch)

    def simulate(self, *benches, withheld, background=()):
        allow = flip_at_random(self.memory.allow, low=withheld, seed=7)
        simulate(self.module, *benches, background=[allow, *background])

    def load(self, ctx, weights):
        """Other entries from the first on; junk in the rest."""
        for index in range(self.weights.depth):
            entry = bytes_of(weights[index]) if index < len(weights) else JUNK & 0xFFFF_FFFF
            ctx.set(self.weights.data[index], entry)

    async def start(self, ctx, strobe, geometry, **settings):
        ctx.set(self.dut.geometry, geometry)
        ctx.set(self.dut.base, settings.pop("base", BASE))
        for name, value in settings.items():
            ctx.set(getattr(self.dut, name), value)
        ctx.set(strobe, 1)
        await ctx.tick()
        ctx.set(strobe, 0)


def pixel_words(image):
    """A word per pixel, a byte per channel; the bytes above are junk."""
    words = []
    for pixel in image.reshape(-1, image.shape[2]).tolist():
        word = sum(byte << 8 * channel for channel, byte in enumerate(pixel))
        words.append(word | JUNK >> 8 * len(pixel) << 8 * len(pixel))
    return words


def stem_entries(weights):
    """For each four channels, each tap, each input channel: four channels' weights."""
    out, _, _, channels = weights.shape
    return [
        [weights[first + index, tap // 3, tap % 3, channel] for index in range(4)]
        for first in range(0, out, 4)
        for tap in range(9)
        for channel in range(channels)
    ]


def stem_sums(image, weights):
    """3 x 3 sums of byte - 128, zero outside: (H, W, out)."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2, width + 2, channels), int)
    padded[1:-1, 1:-1] = image.astype(int) - 128
    sums = np.zeros((height, width, len(weights)), int)
    for y, x in np.ndindex(height, width):
        sums[y, x] = np.tensordot(weights, padded[y : y + 3, x : x + 3], 3)
    return sums


def stem_geometry(height, width, out):
    return dict(kind=Kind.STEM, single=1, columns=width - 1, rows=height - 1, groups=out // 16 - 1)


STEMS = [  # height, width, channels, outputs, shifts of stem and shortcut, grants withheld
    (4, 3, 1, 16, 3, None, 0.0),
    (3, 4, 3, 16, 4, None, 0.5),
    (2, 2, 8, 16, 6, None, 0.7),
    (4, 2, 2, 32, 4, None, 0.3),
    (2, 3, 2, 16, 4, 7, 0.0),
    (3, 2, 3, 16, 5, 20, 0.2),
    (2, 2, 3, 16, 6, 4, 0.0),
]


@pytest.mark.parametrize(
    ("height", "width", "channels", "out", "pre_shift", "other", "withheld"), STEMS
)
def test_stem_waits_for_rows_and_sums_taps(
    height, width, channels, out, pre_shift, other, withheld
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
                got.append((token, ctx.get(dut.half)))
            value = ctx.get(dut.token)
            token = (value.odd, value.group_end, value.position_end, value.row_end)
            token = token if value.valid else None
            await ctx.tick()

    bench.simulate(run, withheld=withheld, background=[deliver])
    expected = [
        ((c % 2, c % 16 == 15, c == out - 1, c == out - 1 and x == width - 1), int(half))
        for (_, x, c), half in np.ndenumerate(stem_sums(image, weights) >> pre_shift)
    ]
    assert len(got) == len(expected)
    for index, (left, right) in enumerate(zip(got, expected, strict=True)):
        assert left == right, np.unravel_index(index, (height, width, out))


def head_entries(weights, mantissa):
    """For each four classes an entry for each channel and one for the bias."""
    classes, channels = weights.shape
    padded = np.zeros((-(-classes // 4) * 4, channels + 1), int)
    padded[:classes, :channels], padded[:classes, channels] = weights, mantissa
    return [padded[first : first + 4, c] for first in range(0, len(padded), 4)
            for c in range(channels + 1)]  # fmt: skip


def head_geometry(channels, classes):
    """Of a step with all classes."""
    return dict(kind=Kind.HEAD, last=1, groups=channels // 16 - 1, columns=-(-classes // 4) - 1)


HEADS = [  # height, width, channels, classes, residual_width, bias_shift, withheld, stalled
    (2, 2, 16, 2, 8, 0, 0.0, 0.0),
    (4, 4, 16, 10, 8, 7, 0.5, 0.5),
    (3, 5, 32, 5, 8, 3, 0.2, 0.95),
    (2, 4, 32, 4, 12, 14, 0.4, 0.0),
    (3, 2, 16, 9, 12, 5, 0.0, 0.8),
]


def head_case(rng, height, width, channels, classes, residual_width):
    limit = 1 << (residual_width - 1)
    values = rng.integers(-limit, limit, (height, width, channels))
    values[..., 0], values[..., 1] = -limit, limit - 1  # sums of four at their greatest
    weights = rng.integers(-127, 128, (classes, channels))
    weights[:, 0], weights[:, 1] = 127, -127
    return values, weights, rng.integers(-127, 128, classes)


@pytest.mark.parametrize(
    ("height", "width", "channels", "classes", "residual_width", "bias_shift", "withheld", "stall"),
    HEADS,
)
@pytest.mark.parametrize("passes", [False, True])
def test_head_pools_and_adds_the_bias(
    height, width, channels, classes, residual_width, bias_shift, withheld, stall, passes
):
    """Twice, on one map each, so that nothing of the first may be left for the second."""
    rng = np.random.default_rng(classes)
    shape = (height, width, channels, classes, residual_width)
    parameters = engine_parameters(
        residual_width, bias_shift=bias_shift, classes=classes, passes=passes
    )
    first, weights, mantissa = head_case(rng, *shape)
    second = head_case(rng, *shape)[0]
    slot = parameters.slot_width
    words = [residual_words(v << parameters.slot_fraction, slot) for v in (first, second)]
    bench = Bench(parameters, words[0] + words[1], head_entries(weights, mantissa), depth=512)
    dut = bench.dut
    got, gaps = [], []

    async def run(ctx):
        for base in (0, len(words[0])):
            await bench.start(
                ctx, dut.start_head, head_geometry(channels, classes), base=base,
                head_words=len(words[0]) - 1,
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
        got.append(ctx.get(dut.half))
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
                halves.append(ctx.get(dut.half))

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
                halves.append(ctx.get(dut.half))
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
                halves.append(ctx.get(dut.half))
            valid = ctx.get(dut.token.valid)
            await ctx.tick()

    bench.simulate(run, withheld=0.0)
    assert halves[:2] == [32767, -32768]
    assert halves[2:] == [40 * 4 * (131068 // 16) // 256, -40 * 4 * (131068 // 16) // 256]
