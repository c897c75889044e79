"""Operands from memory against the golden's activation."""

import numpy as np
import torch
from amaranth.hdl import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, connect

from bnnhw import golden_parts
from gateware.lane import Token
from gateware.operand import OperandReader
from tests.gateware.bench import Memory, play, residual_words, simulate

CHANNELS, ENTRIES, BASE = 16, 4, 3


class Operands(wiring.Component):
    """The reader, its memory and the two banks that its entries come from."""

    token: In(Token)
    load: In(1)

    def __init__(self, words, shift_in, negative):
        super().__init__()
        self.memory = Memory(words)
        self.reader = OperandReader(entry=unsigned(ENTRIES + 1))
        self.banks = [
            memory.Memory(shape=16, depth=2 << ENTRIES, init=[int(v) & 0xFFFF for v in values])
            for values in (shift_in, negative)
        ]

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory, m.submodules.reader = self.memory, self.reader
        connect(m, self.reader.memory, self.memory.fetch)
        m.d.comb += [
            self.memory.allow.eq(1),
            self.reader.base.eq(BASE),
            self.reader.step.eq(1),
            self.reader.load.eq(self.load),
            self.reader.token.eq(self.token),
        ]
        for name, bank, port in zip(
            ("shift_in", "negative"), self.banks, (self.reader.shift_in, self.reader.negative),
            strict=True,
        ):  # fmt: skip
            m.submodules[name] = bank
            read = bank.read_port()
            m.d.comb += [read.addr.eq(self.reader.entry), port.eq(read.data)]
        return m


def test_operands_of_tokens_at_any_distance_from_two_on():
    rng = np.random.default_rng(0)
    values = rng.integers(-32768, 32768, (6, 4, CHANNELS))
    values.flat[:4] = -32768, 32767, -1, 0
    shift_in, negative = rng.integers(-32768, 32768, (2, CHANNELS))
    shift_in[:3] = -1, 1, 1
    dut = Operands([0] * BASE + residual_words(values, 16), shift_in, negative)
    blocks = values.reshape(3, 2, 2, 2, CHANNELS).transpose(0, 2, 4, 1, 3).reshape(-1, CHANNELS, 4)
    tensor = torch.tensor(blocks + shift_in[:, None])
    expected = golden_parts.sat16(tensor).reshape(-1, 4).tolist()
    at = 1 + np.cumsum(rng.choice([2, 2, 3, 5], len(expected)))
    cycles = [[(dut.load, 0), (dut.token, {"valid": 0})] for _ in range(at[-1] + 4)]
    cycles[0] = [(dut.load, 1)]
    tokens = []
    for index, cycle in enumerate(at):
        end = index % CHANNELS == CHANNELS - 1
        tokens.append({"valid": 1, "odd": index % 2, "position_end": end})
        cycles[cycle] = [(dut.token, tokens[-1])]
    samples = []

    def probe(ctx):
        reader = dut.reader
        operand = [ctx.get(reader.operand[lane]) for lane in range(4)]
        return ctx.get(reader.late.as_value()), operand, ctx.get(reader.slope)

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, probe))

    simulate(dut, bench)
    for index, cycle in enumerate(at):
        assert samples[cycle + 2][0] == Token.const(tokens[index]).as_value().value
        assert samples[cycle + 3][1:] == (expected[index], negative[index % CHANNELS])
