"""Operands from memory for tokens at any distance."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.gateware.operand import OperandReader
from tests.gateware.bench import Memory, play, residual_words, simulate, wide

CHANNELS, BASE = 16, 3


@pytest.mark.parametrize("pe", [1, 2, 4, 8])
def test_operands_come_two_cycles_after_their_token(pe):
    rng = np.random.default_rng(0)
    values = rng.integers(-32768, 32768, (6, 4, CHANNELS))
    values.flat[:4] = -32768, 32767, -1, 0
    dut = OperandReader(pe)
    words = [0] * BASE + wide(residual_words(values, 16), pe)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(words, width=64 * pe)
    connect(m, dut.memory, memory.fetch)
    expected = values.reshape(3, 2, 2, 2, CHANNELS).transpose(0, 2, 4, 1, 3).reshape(-1, 4 * pe)
    at = 1 + np.cumsum(rng.choice([1, 2, 3, 5], len(expected)))
    cycles = [[(dut.load, 0), (dut.token, {"valid": 0})] for _ in range(at[-1] + 3)]
    cycles[0] = [(dut.load, 1), (dut.base, BASE)]
    for index, cycle in enumerate(at):
        end = (index + 1) * pe % CHANNELS == 0
        cycles[cycle] = [(dut.load, 0), (dut.token, {"valid": 1, "position_end": end})]
    samples = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        probe = [dut.operand[channel][lane] for channel in range(pe) for lane in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(lane) for lane in probe]))

    simulate(m, bench)
    assert [samples[cycle + 2] for cycle in at] == expected.tolist()
