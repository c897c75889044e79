"""A device around a stand-in for the engine, from the flash to the answer; what may not happen."""

import random
import struct

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Fragment, Signal

from bnnhw.gateware.device import Device
from bnnhw.gateware.wire import Flags, Identity, boot_image
from bnnhw.host.protocol import Answer, Decoder, Header, Status, ask_identity, ask_status, infer
from tests.flow.fakes import FakeEngine
from tests.gateware.bench import simulate
from tests.gateware.test_flash import model
from tests.gateware.test_uart import put_byte

DIVISOR, FRAME, CLASSES = 4, 6, 2
RESULTS = CLASSES + 2
PAYLOAD = struct.pack("<2Q", 0x1122334455660007, 5)
IDENTITY = Identity(height=2, width=3, channels=1, classes=CLASSES, clock_hz=1, baud=1)
BOOT = boot_image(IDENTITY, PAYLOAD, bytes(FRAME), [0, 7, 1])


def make(engine=None):
    engine = engine or FakeEngine(frame_bytes=FRAME, classes=CLASSES)
    return Device(
        engine,
        frame_bytes=FRAME,
        n_results=RESULTS,
        boot_offset=3,
        boot_length=len(PAYLOAD),
        uart_divisor=DIVISOR,
        timeout_bits=12,
        check_start=BOOT.check_start,
    )


class Flash:
    """The device's pins by the names that the model of the flash has for them."""

    def __init__(self, dut):
        self.select, self.clock = dut.flash_select, dut.flash_clock
        self.copi, self.cipo = dut.flash_copi, dut.flash_cipo


def surroundings(dut, image):
    """Background benches: the flash with an image at offset 3, and the large memory."""

    async def flash(ctx):
        await model(ctx, Flash(dut), b"\xff" * 3 + image, [])

    async def memory(ctx):
        words, port = {}, dut.memory
        while True:
            address, write = ctx.get(port.address), ctx.get(port.write)
            data = ctx.get(port.write_data)
            await ctx.tick()
            if write:
                words[address] = data
            else:
                ctx.set(port.read_data, words.get(address, 0))

    return [flash, memory]


async def get(ctx, line):
    await ctx.tick().until(~line)
    await ctx.tick().repeat(DIVISOR // 2)
    value = 0
    for index in range(8):
        await ctx.tick().repeat(DIVISOR)
        value |= ctx.get(line) << index
    await ctx.tick().repeat(DIVISOR)
    assert ctx.get(line), "stop bit is 0"
    return value


def listener(dut, decoder, messages, until):
    async def listen(ctx):
        while len(messages) < until:
            messages.extend(decoder.feed(bytes([await get(ctx, dut.tx)])))

    return listen


def test_boots_and_answers():
    dut, image = make(), random.Random(1).randbytes(FRAME)
    messages = []

    async def host(ctx):
        await ctx.tick().until(dut.ready)
        for value in infer(image, 3):
            await put_byte(ctx, dut.rx, DIVISOR, value)
        assert ctx.get(dut.busy) and not ctx.get(dut.ready) and not ctx.get(dut.error)

    listen = listener(dut, Decoder(CLASSES), messages, 2)
    simulate(dut, host, listen, background=surroundings(dut, BOOT.content))
    *logits, label, cycles = (sum(image) + 7 * index for index in range(RESULTS))
    answer = Answer(3, False, tuple(logits), label, cycles)
    assert answer in messages
    assert any(isinstance(m, Status) and Flags.ROOM in m.flags for m in messages)


class Slow(FakeEngine):
    """An engine whose weights take a while after the boot."""

    def elaborate(self, platform):
        m, wait = super().elaborate(platform), Signal(range(3_000), init=2_999)
        with m.If(self.run & (wait != 0)):
            m.d.sync += wait.eq(wait - 1)
        m.d.comb += self.ready.eq(wait == 0)
        return m


def test_an_image_before_the_engine_is_ready_gets_a_status_and_the_next_its_answer():
    slow, image = Slow(frame_bytes=FRAME, classes=CLASSES), random.Random(2).randbytes(FRAME)
    dut = make(slow)
    messages = []

    async def host(ctx):
        await ctx.tick().until(slow.run)
        for value in infer(image, 1) + ask_status():
            await put_byte(ctx, dut.rx, DIVISOR, value)
            assert not ctx.get(dut.ready)
        await ctx.tick().until(dut.ready)
        for value in infer(image, 2):
            await put_byte(ctx, dut.rx, DIVISOR, value)

    listen = listener(dut, Decoder(CLASSES), messages, 4)
    simulate(dut, host, listen, background=surroundings(dut, BOOT.content))
    early, asked, room, answer = messages
    for status in (early, asked):
        assert not status.flags & (Flags.RUNNING | Flags.REFUSED)
    assert Flags.RUNNING in room.flags
    assert (answer.tag, answer.spoiled, answer.logits[0]) == (2, False, sum(image))


@pytest.mark.parametrize("damaged", [True, False])
def test_a_wrong_image_is_an_error_and_nothing_runs(damaged):
    """The host is told, and sees in the header what there is."""
    other = boot_image(IDENTITY, PAYLOAD, bytes(FRAME), [0, 8, 1])
    content = bytearray(BOOT.content if damaged else other.content)
    content[-6] ^= damaged
    dut, messages = make(), []

    async def host(ctx):
        await ctx.tick().until(dut.error)
        for value in infer(bytes(FRAME)) + ask_identity():
            await put_byte(ctx, dut.rx, DIVISOR, value)
            assert not ctx.get(dut.busy) and not ctx.get(dut.ready)

    listen = listener(dut, Decoder(CLASSES), messages, 2)
    simulate(dut, host, listen, background=surroundings(dut, bytes(content)))
    status, header = messages
    assert Flags.REFUSED in status.flags and Flags.RUNNING not in status.flags
    found = (BOOT if damaged else other).identity
    assert isinstance(header, Header) and header.identity == found


class Hasty(FakeEngine):
    """An engine that is busy from the start."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.busy.eq(1)
        return m


def test_an_engine_that_is_busy_before_it_runs_is_a_fault():
    dut = make(Hasty(frame_bytes=FRAME, classes=CLASSES))

    async def wait(ctx):
        await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError, match="the engine is busy before it runs"):
        simulate(dut, wait)


def test_a_design_for_a_board_has_no_assertions():
    """They are for simulations: with them a board's design would be another one."""
    texts = {
        platform: rtlil.convert(
            Fragment.get(make(), platform), ports=[], name="device", emit_src=False
        )
        for platform in (None, "a board")
    }
    assert "$check" in texts[None] and "$check" not in texts["a board"]
