import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.stream import Signature
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bnnhw.gateware.uart import Receiver, Transmitter
from tests.gateware.bench import simulate
from tests.gateware.streams import receive, send


class Loop(Component):
    """A transmitter wired to a receiver."""

    i: In(Signature(8))
    o: Out(Signature(8))

    def __init__(self, send_divisor, receive_divisor):
        super().__init__()
        self.divisors = send_divisor, receive_divisor

    def elaborate(self, platform):
        m = Module()
        m.submodules.sender = sender = Transmitter(self.divisors[0])
        m.submodules.receiver = receiver = Receiver(self.divisors[1])
        m.d.comb += receiver.line.eq(sender.line)
        connect(m, flipped(self.i), sender.i)
        connect(m, receiver.o, flipped(self.o))
        return m


@pytest.mark.parametrize("divisors", [(4, 4), (8, 8), (12, 12), (52, 51), (52, 53)])
@pytest.mark.parametrize("stall", [0.0, 0.9])
def test_loop_keeps_bytes(divisors, stall):
    values = [0x00, 0xFF, 0x55, 0xAA, *random.Random(1).randbytes(8)]
    dut = Loop(*divisors)
    got = []

    async def feed(ctx):
        await send(ctx, dut.i, values, stall=stall)

    async def drain(ctx):
        got.extend(await receive(ctx, dut.o, len(values), stall=0.5))

    simulate(dut, feed, drain)
    assert got == values


async def put_byte(ctx, line, divisor, value, stop=1):
    for bit in [0, *((value >> i) & 1 for i in range(8)), stop]:
        ctx.set(line, bit)
        await ctx.tick().repeat(divisor)
    ctx.set(line, 1)


def test_receiver_drops_a_wrong_stop_bit_and_glitches():
    dut = Receiver(8)
    got = []

    async def line(ctx):
        await put_byte(ctx, dut.line, 8, 0x12, stop=0)
        await ctx.tick().repeat(200)
        ctx.set(dut.line, 0)
        await ctx.tick()
        ctx.set(dut.line, 1)
        await ctx.tick().repeat(200)
        await put_byte(ctx, dut.line, 8, 0x34)

    async def drain(ctx):
        got.extend(await receive(ctx, dut.o, 1))

    simulate(dut, line, drain)
    assert got == [0x34]


def test_receiver_holds_one_byte_and_loses_older():
    dut = Receiver(4)
    got = []

    async def line(ctx):
        for value in (1, 2, 3):
            await put_byte(ctx, dut.line, 4, value)
        await ctx.tick().repeat(10)
        got.extend(await receive(ctx, dut.o, 1))

    simulate(dut, line)
    assert got == [3]


def test_divisor_too_small():
    with pytest.raises(ValueError, match="divisor=3"):
        Receiver(3)
    with pytest.raises(ValueError, match="divisor=2"):
        Transmitter(2)


def test_a_byte_that_changes_before_it_is_taken_is_a_fault():
    dut = Transmitter(4)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for value in (1, 2, 3):
            ctx.set(dut.i.payload, value)
            await ctx.tick()

    with pytest.raises(AssertionError, match="i: an offer changed before it was taken"):
        simulate(dut, bench)
