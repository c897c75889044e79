"""Operands from memory for tokens at any distance."""

import numpy as np
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.gateware.operand import OperandReader
from tests.gateware.bench import Memory, play, residual_words, simulate

CHANNELS, BASE = 16, 3


def test_operands_come_the_cycle_after_their_token():
    rng = np.random.default_rng(0)
    values = rng.integers(-32768, 32768, (6, 4, CHANNELS))
    values.flat[:4] = -32768, 32767, -1, 0
    dut = OperandReader()
    words = [0] * BASE + residual_words(values, 16)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(words)
    connect(m, dut.memory, memory.fetch)
    expected = values.reshape(3, 2, 2, 2, CHANNELS).transpose(0, 2, 4, 1, 3).reshape(-1, 4)
    at = 1 + np.cumsum(rng.choice([1, 2, 3, 5], len(expected)))
    cycles = [[(dut.load, 0), (dut.token, {"valid": 0})] for _ in range(at[-1] + 2)]
    cycles[0] = [(dut.load, 1), (dut.base, BASE)]
    for index, cycle in enumerate(at):
        end = index % CHANNELS == CHANNELS - 1
        cycles[cycle] = [(dut.load, 0), (dut.token, {"valid": 1, "position_end": end})]
    samples = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        probe = [dut.operand[lane] for lane in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(lane) for lane in probe]))

    simulate(m, bench)
    assert [samples[cycle + 1] for cycle in at] == expected.tolist()
