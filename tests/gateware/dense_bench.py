"""What benches of the multiply-accumulators share: their memory and weights, a stem, a head."""

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import memory
from amaranth.lib.wiring import connect

from bnnhw.gateware.dense import Dense
from bnnhw.gateware.macs import MacBank, MacFormat
from bnnhw.gateware.program import Kind
from tests.gateware.bench import JUNK, Memory, flip_at_random, simulate, wide

BASE = 40


def bytes_of(weights):
    """Signed bytes as a number, the first lowest."""
    return sum((int(weight) & 255) << 8 * index for index, weight in enumerate(weights))


def gathered(entries, pe):
    """Entries of channels in parallel, one of each channel after the other, in one each."""
    rows = zip(*[iter(entries)] * pe, strict=True)
    return [[weight for entry in row for weight in entry] for row in rows]


class Bench:
    """A Dense with its memory and a weight buffer of one cycle's latency.

    `weights` is a list of entries, each the weights of four outputs, pointwise of two inputs; with
    channels in parallel those of one are next to each other, those of its tokens in four bytes.
    """

    def __init__(self, parameters, words, weights, *, depth=256):
        self.dut = Dense(parameters)
        words = wide(words, parameters.pe)
        self.memory = Memory(words, depth=depth, width=parameters.word_width)
        self.module = m = Module()
        m.submodules.dut, m.submodules.memory = self.dut, self.memory
        for channel in range(parameters.pe):
            macs = MacBank(MacFormat.of(parameters), parameters.tokens)
            m.submodules[f"macs_{channel}"] = macs
            connect(m, self.dut.macs[channel], macs.macs)
        m.submodules.weights = self.weights = memory.Memory(
            shape=len(self.dut.weights.as_value()),
            depth=parameters.weight_depth,
            init=[*map(bytes_of, gathered(weights, parameters.pe))],
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


def stem_sums(image, weights, pad=()):
    """3 x 3 sums of byte - 128, of pad's bytes or zero outside: (H, W, out)."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2, width + 2, channels), int)
    padded[:] = np.array(pad or 128) - 128
    padded[1:-1, 1:-1] = image.astype(int) - 128
    sums = np.zeros((height, width, len(weights)), int)
    for y, x in np.ndindex(height, width):
        sums[y, x] = np.tensordot(weights, padded[y : y + 3, x : x + 3], 3)
    return sums


def stem_geometry(height, width, out):
    return dict(kind=Kind.STEM, single=1, columns=width - 1, rows=height - 1, groups=out // 16 - 1)


def head_entries(weights, mantissa, pe=1, tokens=4):
    """For each walk's classes an entry for each channel and one for the bias; class
    token * pe + channel is byte `token` of that channel's."""
    (classes, channels), each = weights.shape, pe * tokens
    padded = np.zeros((-(-classes // each) * each, channels + 1), int)
    padded[:classes, :channels], padded[:classes, channels] = weights, mantissa
    return [
        [*padded[first + channel : first + each : pe, c], *[0] * (4 - tokens)]
        for first in range(0, len(padded), each)
        for c in range(channels + 1)
        for channel in range(pe)
    ]


def head_geometry(channels, classes, at_once=4):
    """Of a step with all classes."""
    walks = -(-classes // at_once)
    return dict(kind=Kind.HEAD, last=1, groups=channels // 16 - 1, columns=walks - 1)


def head_case(rng, height, width, channels, classes, residual_width):
    limit = 1 << (residual_width - 1)
    values = rng.integers(-limit, limit, (height, width, channels))
    values[..., 0], values[..., 1] = -limit, limit - 1  # sums of four at their greatest
    weights = rng.integers(-127, 128, (classes, channels))
    weights[:, 0], weights[:, 1] = 127, -127
    return values, weights, rng.integers(-127, 128, classes)
