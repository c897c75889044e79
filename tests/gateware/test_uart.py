import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.stream import Signature
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bnnhw.gateware.uart import Receiver, Transmitter
from tests.gateware.bench import simulate
from tests.gateware.streams import receive, send


class Loop(Component):
    """A transmitter of bytes wired to a receiver."""

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
        m.d.comb += [
            sender.i.payload.eq(self.i.payload.bit_select(sender.index, 1)),
            sender.i.valid.eq(self.i.valid),
            self.i.ready.eq(sender.i.ready & (sender.index == 7)),
        ]
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
        got.extend(await receive(ctx, dut.o, len(values)))

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


@pytest.mark.parametrize("wait", [1, 2, 3])
def test_a_byte_may_wait_half_a_bit_of_the_next(wait):
    """It is there from the middle of its stop bit to that of the next byte's start bit."""
    dut = Receiver(4)
    got = []

    async def line(ctx):
        for value in (1, 2):
            await put_byte(ctx, dut.line, 4, value)
        await ctx.tick().repeat(10)

    async def take(ctx):
        await ctx.tick().until(dut.o.valid)
        await ctx.tick().repeat(wait)
        got.extend(await receive(ctx, dut.o, 1))

    simulate(dut, line, take)
    assert got == [1 if wait < 3 else 2]


def test_shift_has_the_data_bits_as_they_come():
    dut = Receiver(4)
    got = []

    async def line(ctx):
        for value in (0x35, 0xC1):
            await put_byte(ctx, dut.line, 4, value)

    async def watch(ctx):
        async for _, _, shift, bit in ctx.tick().sample(dut.shift, dut.line):
            if shift:
                got.append(bit)

    simulate(dut, line, background=[watch])
    assert got == [value >> place & 1 for value in (0x35, 0xC1) for place in range(8)]


def test_bytes_follow_each_other_without_a_pause():
    """Ten bit times a byte, and a tick each bit time."""
    dut = Transmitter(4)
    lines, ticks = [], []

    async def feed(ctx):
        for bit in 2 * [1, 0, 1, 1, 0, 0, 0, 1]:
            await send(ctx, dut.i, [bit])

    async def watch(ctx):
        async for _, _, line, tick in ctx.tick().sample(dut.line, dut.tick):
            lines.append(line)
            ticks.append(tick)

    simulate(dut, feed, background=[watch])
    begin = lines.index(0)
    assert lines[begin::4] == [0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 0]
    assert ticks == [index % 4 == ticks.index(1) for index in range(len(ticks))]


def test_divisor_too_small():
    with pytest.raises(ValueError, match="divisor=3"):
        Receiver(3)
    with pytest.raises(ValueError, match="divisor=2"):
        Transmitter(2)


def test_a_bit_that_is_not_there_in_its_time_is_a_fault():
    dut = Transmitter(4)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(9)

    with pytest.raises(AssertionError, match="a byte's bit is not there in its time"):
        simulate(dut, bench)
