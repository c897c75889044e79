"""The reader of streams against a model of the flash, which checks the protocol."""

import random

import pytest

from bnnhw.gateware.parameters import stream_nibbles
from bnnhw.gateware.qspi import QuadReader, stream_image
from bnnhw.gateware.wire import checksum
from tests.gateware.bench import simulate

OFFSET, HEADER = 0x012346, bytes(range(200, 211))
STREAM = OFFSET + len(HEADER)
START = 0x1234_5678
WAKE_CYCLES = 200


class QuadFlash:
    """A W25Q128JV as its data sheet has it: one call a cycle, with what its pins see.

    Asleep until 0xAB and a wait; quad reads need the enable bit of status register 2; the wires are
    driven by one side at a time. A missing chip leaves them to the pull-ups.
    """

    def __init__(self, content, *, missing=False, stuck=None):
        self.content, self.missing, self.stuck = content, missing, stuck
        self.log, self.bits, self.awake, self.quad, self.writable = [], [], None, False, False
        self.now, self.nibbles = 0, None

    def cycle(self, select, clock, o, oe):
        """The wires, during a cycle with these outputs and, if `clock`, a pulse in its end."""
        self.now += 1
        if not select:
            assert not clock, "a clock without a select"
            if self.bits:
                self.end()
            self.bits, self.nibbles = [], None
            return 0xF
        out, driven = self.drive()
        assert not driven & oe, "two drive a wire"
        wires = (out & driven) | (o & oe) | (0xF & ~driven & ~oe)
        if self.stuck is not None:
            wires |= 1 << self.stuck
        if clock:
            self.bits.append((wires, oe))
        return wires

    def drive(self):
        if self.missing or len(self.bits) < 20:
            return 0, 0
        if self.nibbles is None:
            self.begin()
        at = self.nibbles + len(self.bits) - 20
        byte = self.content[at // 2] if at // 2 < len(self.content) else 0xFF
        return (byte >> 4 if at % 2 == 0 else byte & 15), 0xF

    def command(self, size):
        assert all(oe == 0b1101 and wires >> 2 == 3 for wires, oe in self.bits[:size])
        return int("".join(str(wires & 1) for wires, _ in self.bits[:size]), 2)

    def begin(self):
        assert self.awake is not None and self.now - self.awake >= WAKE_CYCLES and self.quad
        assert self.command(8) == 0xEB
        assert all(oe == 0xF for _, oe in self.bits[8:16])
        assert all(oe == 0 for _, oe in self.bits[16:20])
        address = int("".join(f"{wires:x}" for wires, _ in self.bits[8:14]), 16)
        mode = self.bits[14][0]
        assert mode & 3 != 2, "continuous read mode"
        self.nibbles = 2 * address
        self.log.append((0xEB, address))

    def end(self):
        if self.nibbles is not None or self.missing:
            return
        word = self.command(len(self.bits))
        self.log.append((word,))
        if word == 0xAB:
            self.awake = self.now
            return
        assert self.awake is not None and self.now - self.awake >= WAKE_CYCLES
        if word == 0x50:
            self.writable = True
        elif word == 0x3102:
            assert self.writable
            self.quad = True
        else:
            raise AssertionError(f"command {word:#x}")


def pins(dut, flash):
    """The registers of the pins between the reader and a flash."""

    async def process(ctx):
        last = 0xF
        while True:
            tick = ctx.tick().sample(dut.select, dut.clock, dut.o, dut.oe)
            _, _, *outputs = await tick
            ctx.set(dut.i, last)
            last = flash.cycle(*outputs)

    return process


SETUP = [(0xAB,), (0x50,), (0x3102,)]


def random_stream(count, seed=0):
    rng = random.Random(seed)
    short = [rng.random() < 0.5 for _ in range(count)]
    return [rng.getrandbits(48 if s else 64) for s in short], short


def reader(length):
    return QuadReader(offset=OFFSET, header_bytes=len(HEADER), length=length, check_start=START)


def run(image, length, rounds, *, short=(), wanted=1.0, flash=None, cycles=20_000):
    """Takes all words `rounds` times; the words, (ready, fault) at the end, and cycles a round."""
    flash = flash or QuadFlash(bytes(OFFSET) + HEADER + image)
    dut = reader(length)
    got, states, times = [], [], []
    rng = random.Random(5)

    async def bench(ctx):
        words, cycle = dut.words, 0
        while not ctx.get(dut.ready | dut.fault):
            assert not ctx.get(words.valid | words.grant | words.checked)
            await ctx.tick()
        for _ in range(rounds):
            granted, taken, start = 0, 0, cycle
            while taken < len(short) or not ctx.get(words.checked | dut.fault):
                if ctx.get(dut.fault):
                    break
                ctx.set(words.request, granted < len(short) and rng.random() < wanted)
                ctx.set(words.short, granted > 0 and bool(short[granted - 1]))
                granted += ctx.get(words.request & words.grant)
                if ctx.get(words.valid):
                    got.append(ctx.get(words.data) & ((1 << (48 if short[taken] else 64)) - 1))
                    taken += 1
                cycle += 1
                await ctx.tick()
            times.append(cycle - start)
            ctx.set(words.restart, ctx.get(words.checked))
            await ctx.tick()
            ctx.set(words.restart, 0)
        states.append((ctx.get(dut.ready), ctx.get(dut.fault)))

    simulate(dut, bench, background=[pins(dut, flash)], cycles=cycles)
    return got, states[0], times, flash.log


@pytest.mark.parametrize("wanted", [1.0, 0.6, 0.05])
def test_words_come_in_order_round_after_round(wanted):
    words, short = random_stream(40)
    length = stream_nibbles(short)
    got, state, times, log = run(
        stream_image(words, short, START), length, 3, short=short, wanted=wanted
    )
    assert got == words * 3 and state == (1, 0)
    assert log == [*SETUP, *[(0xEB, STREAM)] * 4]
    if wanted == 1.0:  # a nibble a clock: command, address, mode, dummy, check sum, a few to drain
        assert max(times) <= length + 8 + 8 + 4 + 8 + 6


@pytest.mark.parametrize("bit", [3, 64, 200, 1100, -1, -20])
def test_a_flipped_bit_is_a_fault_before_any_word(bit):
    words, short = random_stream(20)
    image = bytearray(stream_image(words, short, START))
    image[bit // 8] ^= 1 << bit % 8
    got, state, _, _ = run(bytes(image), stream_nibbles(short), 1, short=short)
    assert got == [] and state == (0, 1)


@pytest.mark.parametrize("fault", [dict(missing=True), *[dict(stuck=wire) for wire in (0, 1, 3)]])
def test_a_missing_chip_or_a_stuck_wire_is_a_fault(fault):
    words, short = random_stream(20)
    image = stream_image(words, short, START)
    flash = QuadFlash(bytes(OFFSET) + HEADER + image, **fault)
    if fault.get("stuck") == 0:  # no command is right then
        flash.end = lambda: None
        flash.missing = True
    if fault.get("stuck") is not None and fault["stuck"] < 3:
        flash.begin = lambda: setattr(flash, "nibbles", 2 * STREAM)
    got, state, _, _ = run(image, stream_nibbles(short), 1, short=short, flash=flash)
    assert got == [] and state == (0, 1)


def test_a_bit_that_flips_later_is_a_fault_in_its_round():
    words, short = random_stream(20)
    image = stream_image(words, short, START)
    flash = QuadFlash(bytes(OFFSET) + HEADER + image)
    begin = flash.begin

    def third():
        begin()
        if len(flash.log) == len(SETUP) + 3:  # verified, read once, and again
            flash.content = bytearray(flash.content)
            flash.content[STREAM + 30] ^= 8

    flash.begin = third
    got, state, _, _ = run(image, stream_nibbles(short), 3, short=short, flash=flash)
    assert got[:20] == words and len(got) == 40 and state == (1, 1)


@pytest.mark.parametrize("broken", [False, True])
def test_the_header_is_read_between_words_and_after_a_fault(broken):
    words, short = random_stream(30)
    image, length = bytearray(stream_image(words, short, START)), stream_nibbles(short)
    image[7] ^= broken
    flash, dut = QuadFlash(bytes(OFFSET) + HEADER + bytes(image)), reader(length)
    got, headers = [], []

    async def host(ctx):
        rng = random.Random(2)
        while True:
            await ctx.tick().repeat(rng.randrange(40, 300))
            ctx.set(dut.read, 1)
            read = []
            while len(read) < len(HEADER):
                ctx.set(dut.header.ready, 0)
                await ctx.tick().repeat(rng.randrange(1, 12))
                ctx.set(dut.header.ready, 1)
                byte, last = (
                    await ctx.tick().sample(dut.header.payload, dut.last).until(dut.header.valid)
                )
                read.append(byte)
                assert last == (len(read) == len(HEADER))
            ctx.set(dut.header.ready, 0)
            ctx.set(dut.read, 0)
            headers.append(bytes(read))

    async def bench(ctx):
        if broken:
            await ctx.tick().until(dut.fault)
            while len(headers) < 3:
                assert not ctx.get(dut.words.grant | dut.words.valid)
                await ctx.tick()
            return
        await ctx.tick().until(dut.ready)
        for _ in range(4):
            granted, taken = 0, 0
            while not ctx.get(dut.words.checked):
                ctx.set(dut.words.request, granted < 30)
                ctx.set(dut.words.short, granted > 0 and bool(short[granted - 1]))
                _, _, grant, valid, data = await ctx.tick().sample(
                    dut.words.request & dut.words.grant, dut.words.valid, dut.words.data
                )
                granted += grant
                if valid:
                    got.append(data & ((1 << (48 if short[taken] else 64)) - 1))
                    taken += 1
            ctx.set(dut.words.restart, 1)
            await ctx.tick()
            ctx.set(dut.words.restart, 0)

    simulate(dut, bench, background=[pins(dut, flash), host])
    assert got == ([] if broken else words * 4)
    assert len(headers) >= 3 and set(headers) == {HEADER}


@pytest.mark.parametrize("taken", [3, 21])
def test_a_program_that_loses_its_place_is_a_fault(taken):
    """Fewer words than there are and a restart, or more."""
    words, short = random_stream(20)
    image, length = stream_image(words, short, START), stream_nibbles(short)
    dut = reader(length)
    flash = QuadFlash(bytes(OFFSET) + HEADER + image)

    async def bench(ctx):
        await ctx.tick().until(dut.ready)
        granted = 0
        while granted < min(taken, 20):
            ctx.set(dut.words.request, 1)
            ctx.set(dut.words.short, granted > 0 and short[granted - 1])
            granted += ctx.get(dut.words.grant)
            await ctx.tick()
        ctx.set(dut.words.request, 0)
        if taken > 20:
            ctx.set(dut.words.short, short[19])
            await ctx.tick().repeat(60)
            assert ctx.get(dut.words.checked)
            ctx.set(dut.words.request, 1)
        else:
            await ctx.tick().repeat(5)
            ctx.set(dut.words.restart, 1)
        await ctx.tick()
        assert ctx.get(dut.fault)
        for _ in range(50):
            assert not ctx.get(dut.words.checked | dut.words.grant)
            await ctx.tick()

    simulate(dut, bench, background=[pins(dut, flash)])


def test_the_image_is_words_and_their_check_sum():
    image = stream_image([0x0123456789ABCDEF, 0x112233445566], [False, True])
    content = bytes.fromhex("0123456789abcdef112233445566")
    assert image == content + checksum(content).to_bytes(4, "big")
    assert stream_nibbles([False, True]) == 28
    with pytest.raises(ValueError, match=r"words\[0\]=0x1000000000000: a short word has 48 bits"):
        stream_image([1 << 48], [True])
    with pytest.raises(ValueError, match="offset=0x1000000: a flash address has 24 bits"):
        QuadReader(offset=1 << 24, header_bytes=1, length=16)
    with pytest.raises(ValueError, match="length=17: must be even, and 16 or more"):
        QuadReader(offset=0, header_bytes=1, length=17)
