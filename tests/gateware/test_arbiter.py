"""The arbiter before a memory: who is granted, and what is read and written when."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import memory

from bnnhw.gateware.arbiter import Arbiter
from bnnhw.gateware.memory import WORD_WIDTH, FetchRequest, WriteRequest
from tests.gateware.bench import simulate

DEPTH = 16


@pytest.mark.parametrize("seed", range(3))
def test_the_first_that_asks_is_granted_and_served_two_cycles_later(seed):
    kinds = dict(
        first=FetchRequest(), writer=WriteRequest(), second=WriteRequest(), last=FetchRequest()
    )
    dut = Arbiter(kinds)
    words = [random.Random(seed).getrandbits(64) for _ in range(DEPTH)]
    storage = memory.Memory(shape=WORD_WIDTH, depth=DEPTH, init=words)
    m = Module()
    m.submodules.dut, m.submodules.storage = dut, storage
    read, write = storage.read_port(), storage.write_port(granularity=4)
    m.d.comb += [
        read.addr.eq(dut.memory.address),
        dut.memory.read_data.eq(read.data),
        write.addr.eq(dut.memory.address),
        write.data.eq(dut.memory.write_data),
        write.en.eq(dut.memory.write.replicate(16) & dut.memory.write_mask),
    ]
    rng = random.Random(10 + seed)
    granted = {name: 0 for name in kinds}

    async def bench(ctx):
        expected = [None, None]  # what is read, two cycles from its grant
        for _ in range(400):
            asks = []
            for name in kinds:
                client = getattr(dut, name)
                ctx.set(client.request, rng.random() < 0.5)
                ctx.set(client.address, rng.randrange(DEPTH))
                if "data" in dir(client) and isinstance(kinds[name], WriteRequest):
                    ctx.set(client.data, rng.getrandbits(64))
                    ctx.set(client.mask, rng.getrandbits(16))
                if ctx.get(client.request):
                    asks.append(name)
            wanted = expected.pop(0)
            for name, kind in kinds.items():
                client = getattr(dut, name)
                before = [*kinds][: [*kinds].index(name)]
                free = not any(other in before for other in asks)
                if isinstance(kind, WriteRequest):
                    assert ctx.get(client.grant) == (free and name in asks)
                else:
                    assert ctx.get(client.grant) == free
                    assert wanted is None or ctx.get(client.data) == wanted
            expected.append(None)
            if asks:
                name = asks[0]
                granted[name] += 1
                client = getattr(dut, name)
                at = ctx.get(client.address)
                if isinstance(kinds[name], WriteRequest):
                    mask = sum(15 << 4 * n for n in range(16) if ctx.get(client.mask) >> n & 1)
                    words[at] = words[at] & ~mask | ctx.get(client.data) & mask
                else:
                    expected[-1] = words[at]
            await ctx.tick()

    simulate(m, bench)
    assert all(count > 10 for count in granted.values())
