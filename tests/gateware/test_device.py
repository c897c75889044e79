"""A device around a stand-in for the engine, from the flash to the answer; what may not happen."""

import random
import struct

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Fragment

from bnnhw.gateware.device import Device
from bnnhw.gateware.flash import boot_image
from bnnhw.gateware.frames import COMMAND, GOOD
from tests.flow.fakes import FakeEngine
from tests.gateware.bench import simulate
from tests.gateware.test_flash import model
from tests.gateware.test_uart import put_byte

DIVISOR, FRAME, CLASSES = 4, 6, 2
RESULTS = CLASSES + 2
PAYLOAD = struct.pack("<2Q", 0x1122334455660007, 5)


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


def test_boots_and_answers():
    dut, image = make(), random.Random(1).randbytes(FRAME)
    answer = bytearray()

    async def host(ctx):
        await ctx.tick().until(dut.ready)
        for value in bytes([COMMAND]) + image:
            await put_byte(ctx, dut.rx, DIVISOR, value)
        assert ctx.get(dut.busy) and not ctx.get(dut.ready) and not ctx.get(dut.error)

    async def listen(ctx):
        while len(answer) < 1 + 4 * RESULTS:
            answer.append(await get(ctx, dut.tx))

    simulate(dut, host, listen, background=surroundings(dut, boot_image(PAYLOAD)))
    results = [sum(image) + 7 * index for index in range(RESULTS)]
    assert bytes(answer) == struct.pack(f"<B{RESULTS}i", GOOD, *results)


def test_a_wrong_image_is_an_error_and_nothing_runs():
    dut, image = make(), bytearray(boot_image(PAYLOAD))
    image[9] ^= 1

    async def host(ctx):
        await ctx.tick().until(dut.error)
        for value in bytes([COMMAND]) + bytes(FRAME):
            await put_byte(ctx, dut.rx, DIVISOR, value)
            assert not ctx.get(dut.busy) and not ctx.get(dut.ready) and ctx.get(dut.tx)

    simulate(dut, host, background=surroundings(dut, bytes(image)))


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
