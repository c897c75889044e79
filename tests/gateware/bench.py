"""What the engine's benches share: clock and watchdog, stimuli by cycle, a reluctant memory."""

import random

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from bnnhw.gateware.memory import WORD_WIDTH, FetchRequest, WriteRequest
from bnnhw.gateware.parameters import EngineParameters
from bnnhw.network.spec import NumberFormats

JUNK = 0xDEAD_BEEF_F00D_5EED
FORMATS = {  # by residual width: one for each width of the slots in memory
    8: NumberFormats(residual_width=8, residual_fraction=4, scale_fraction=12, guard=4),
    12: NumberFormats(residual_width=12, residual_fraction=6, scale_fraction=9, guard=2),
}


def engine_parameters(residual_width=8, **changes):
    """Parameters of a small engine with the formats of FORMATS."""
    formats = FORMATS[residual_width]
    settings = dict(
        residual_width=residual_width, guard=formats.guard,
        shift=formats.scale_fraction - formats.guard, acc_width=10, thresholds=True,
        minus_one=False, odd_maps=True, image_height=4, image_width=4, image_channels=1,
        pre_shift=0, bias_shift=0, classes=2, tokens=min(4, 16 // changes.get("pe", 1)),
    )  # fmt: skip
    return EngineParameters(**settings | changes)


def simulate(dut, *benches, background=(), cycles=20_000):
    """Run `benches` to their ends; fail if one is not there after `cycles` clock cycles.

    In each cycle `background` acts first, then the benches in order.
    """
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def watchdog(ctx):
        await ctx.delay(1e-6 * cycles)
        raise AssertionError(f"watchdog: a bench is not done after {cycles} cycles")

    for bench in (*background, watchdog):
        simulator.add_testbench(bench, background=True)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def evaluate(expression, *rows):
    """The value of `expression` for each row, a dict of signal to value; no clock."""
    simulator = Simulator(Module())
    values = []

    async def bench(ctx):
        for row in rows:
            for signal, value in row:
                ctx.set(signal, value)
            values.append(ctx.get(expression))

    simulator.add_testbench(bench)
    simulator.run()
    return values


async def play(ctx, cycles, probe):
    """Set each of `cycles`, lists of (signal, value), in its cycle; returns probe(ctx) in each."""
    samples = []
    for settings in cycles:
        for signal, value in settings:
            ctx.set(signal, value)
        samples.append(probe(ctx))
        await ctx.tick()
    return samples


def flip_at_random(signal, *, low, seed=0):
    """A background bench: in each cycle `signal` is 0 with probability `low`, else 1."""

    async def bench(ctx):
        rng = random.Random(seed)
        while True:
            ctx.set(signal, rng.random() >= low)
            await ctx.tick()

    return bench


class Memory(wiring.Component):
    """The large memory as one unit sees it: a cycle is granted only while `allow`.

    Fetches are granted whether they are requested or not, as in the engine. What is on
    `fetch.data` in other cycles than the second after a granted request is junk. `words` is what is
    in it at the start, junk after that; `contents` reads it back. `width` : bits of
    a word.
    """

    def __init__(self, words=(), *, depth=256, width=WORD_WIDTH):
        super().__init__(
            {"allow": In(1), "fetch": In(FetchRequest(width)), "write": In(WriteRequest(width))}
        )
        self.junk = JUNK * (((1 << width) - 1) // ((1 << WORD_WIDTH) - 1))
        self.width = width
        init = [*map(int, words)]
        assert len(init) <= depth
        init += [self.junk] * (depth - len(init))
        self.depth = depth
        self.storage = memory.Memory(shape=width, depth=depth, init=init)

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = self.storage
        read, write = self.storage.read_port(), self.storage.write_port(granularity=4)
        asked, fetched, word = Signal(), Signal(), Signal(self.width)
        m.d.comb += [
            self.fetch.grant.eq(self.allow),
            self.write.grant.eq(self.write.request & self.allow),
            read.addr.eq(self.fetch.address),
            self.fetch.data.eq(Mux(fetched, word, self.junk)),
            write.addr.eq(self.write.address),
            write.data.eq(self.write.data),
            write.en.eq(Mux(self.write.grant, self.write.mask, 0)),
        ]
        m.d.sync += [
            asked.eq(self.fetch.request & self.fetch.grant),
            fetched.eq(asked),
            word.eq(read.data),
        ]
        return m

    def contents(self, ctx):
        """All words, a list of int."""
        return [ctx.get(self.storage.data[index]) for index in range(self.depth)]


def wide(words, pe):
    """Words of 64 bits in the words of a memory of `pe` times as many, the first lowest."""
    rows = zip(*[iter(words)] * pe, strict=True)
    return [sum(int(word) << WORD_WIDTH * at for at, word in enumerate(row)) for row in rows]


def narrow(words, pe):
    """Wide words in words of 64 bits."""
    mask = (1 << WORD_WIDTH) - 1
    return [word >> WORD_WIDTH * at & mask for word in words for at in range(pe)]


def whole(bits):
    """A sequence of 0 and 1, the least significant first, as an int."""
    return sum(int(bit) << index for index, bit in enumerate(bits))


def _blocks(values):
    """For each block of a map (H, W, C), row-major: the four lanes' channels, 0 outside."""
    height, width, channels = values.shape
    nothing = [0] * channels
    for row in range(0, height, 2):
        for column in range(0, width, 2):
            places = [(row + lane // 2, column + lane % 2) for lane in range(4)]
            yield [
                [*map(int, values[y, x])] if y < height and x < width else nothing
                for y, x in places
            ]


def bit_words(bits):
    """Bits (H, W, C), C in whole groups of 16, as bnnhw.compiler.layout has them."""
    return [
        sum(whole(lane[first : first + 16]) << 16 * index for index, lane in enumerate(lanes))
        for lanes in _blocks(bits)
        for first in range(0, bits.shape[2], 16)
    ]


def residual_words(values, slot_width):
    """Residuals (H, W, C), C in whole groups of 16, as bnnhw.compiler.layout has them."""
    per_word, mask = 16 // slot_width, (1 << slot_width) - 1
    words = []
    for lanes in _blocks(values):
        for first in range(0, values.shape[2], per_word):
            slots = [lane[first + c] & mask for c in range(per_word) for lane in lanes]
            words.append(sum(slot << slot_width * index for index, slot in enumerate(slots)))
    return words
