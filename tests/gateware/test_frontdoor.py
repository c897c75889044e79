"""Bytes from outside: the boot image, then frames, into a memory that withholds grants."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.gateware.frontdoor import ByteWriter
from tests.gateware.bench import JUNK, Memory, engine_parameters, flip_at_random, simulate
from tests.gateware.streams import send

IMAGE_BASE = 5


def pixel_word(pixel, before):
    """A word with a pixel's bytes in front and the rest as before."""
    size = 8 * len(pixel)
    return int.from_bytes(pixel, "little") | before >> size << size


def bit_map(frame, height, width, channels, levels, before):
    """Words of the map that a frame's thermometers make; `before` outside an odd-sized map."""
    groups = -(-levels // 16)
    columns = -(-width // 2)
    words = [before] * (-(-height // 2) * columns * channels * groups)
    for index, byte in enumerate(frame):
        pixel, channel = divmod(index, channels)
        row, column = divmod(pixel, width)
        lane = 2 * (row % 2) + column % 2
        for group in range(groups):
            bits = sum(
                1 << level % 16
                for level in range(16 * group, min(levels, 16 * group + 16))
                if 2 * byte * (levels + 1) >= 512 * (level + 1) - (levels + 1)
            )
            at = ((row // 2 * columns + column // 2) * channels + channel) * groups + group
            words[at] = words[at] & ~(0xFFFF << 16 * lane) | bits << 16 * lane
    return words


@pytest.mark.parametrize("withheld", [0.0, 0.7])
@pytest.mark.parametrize(
    ("height", "width", "channels", "levels"), [(3, 4, 3, 32), (2, 3, 1, 6), (5, 5, 2, 18)]
)
def test_pixels_as_thermometers(height, width, channels, levels, withheld):
    """Frame after frame, each read when it is complete and none taken before it is consumed."""
    rng = random.Random(levels)
    boot, size = rng.randbytes(16), height * width * channels
    frames = [rng.randbytes(size) for _ in range(3)]
    parameters = engine_parameters(
        image_height=height, image_width=width, image_channels=channels, levels=levels
    )
    dut = ByteWriter(parameters, image_base=IMAGE_BASE)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(depth=64)
    connect(m, dut.memory, memory.write)
    start = [int.from_bytes(boot[at : at + 8], "little") for at in (0, 8)]

    async def bench(ctx):
        await send(ctx, dut.load, boot, stall=0.3)
        while memory.contents(ctx)[:2] != start:
            await ctx.tick()
        ctx.set(dut.run, 1)
        await ctx.tick()
        for frame in frames:
            await send(ctx, dut.pixels, frame, stall=0.2)
            ctx.set(dut.pixels.valid, 1)  # the next frame has to wait
            ctx.set(dut.pixels.payload, 0xEE)
            while not ctx.get(dut.complete):
                await ctx.tick()
            await ctx.tick().repeat(10)
            image = bit_map(frame, height, width, channels, levels, JUNK)
            assert ctx.get(dut.received) == height
            expected = start + [JUNK] * (IMAGE_BASE - 2) + image
            assert memory.contents(ctx) == expected + [JUNK] * (64 - len(expected))
            ctx.set(dut.pixels.valid, 0)
            ctx.set(dut.consume, 1)
            await ctx.tick()
            ctx.set(dut.consume, 0)

    simulate(m, bench, background=[flip_at_random(memory.allow, low=withheld)])


def watch_turns(dut):
    """A background bench: a byte is only taken when it is its turn."""

    async def watch(ctx):
        ports = (dut.run, dut.complete, dut.load.ready, dut.pixels.ready)
        async for _, _, run, complete, load, pixels in ctx.tick().sample(*ports):
            assert not (run and load), "boot image taken while running"
            assert not (pixels and (complete or not run)), "pixel taken too early"

    return watch


def check_rows(ctx, dut, memory, frame, width, channels):
    """The rows said to be received are in memory."""
    for index in range(ctx.get(dut.received) * width):
        pixel = frame[index * channels :][:channels]
        at = IMAGE_BASE + index
        assert ctx.get(memory.storage.data[at]) == pixel_word(pixel, JUNK), index


async def check_frame(ctx, dut, memory, frame, height, width, channels):
    """Sends a frame, byte by byte, and consumes it; the next one has to wait until then."""
    for index, byte in enumerate(frame):
        assert not ctx.get(dut.complete)
        assert ctx.get(dut.received) <= index // (channels * width)
        check_rows(ctx, dut, memory, frame, width, channels)
        await send(ctx, dut.pixels, [byte], stall=0.2, seed=index)
    ctx.set(dut.pixels.valid, 1)
    ctx.set(dut.pixels.payload, 0xEE)
    while not ctx.get(dut.complete):
        await ctx.tick()
    for _ in range(10):
        assert ctx.get(dut.complete) and ctx.get(dut.received) == height
        check_rows(ctx, dut, memory, frame, width, channels)
        await ctx.tick()
    ctx.set(dut.pixels.valid, 0)
    ctx.set(dut.consume, 1)
    await ctx.tick()
    ctx.set(dut.consume, 0)
    assert not ctx.get(dut.complete) and not ctx.get(dut.received)


@pytest.mark.parametrize("withheld", [0.0, 0.7])
@pytest.mark.parametrize(("height", "width", "channels"), [(3, 4, 3), (2, 3, 1), (4, 2, 8)])
def test_boot_image_then_frames(height, width, channels, withheld):
    rng = random.Random(channels)
    boot, size = rng.randbytes(24), height * width * channels
    frames = [rng.randbytes(size) for _ in range(3)]
    parameters = engine_parameters(image_height=height, image_width=width, image_channels=channels)
    dut = ByteWriter(parameters, image_base=IMAGE_BASE)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(depth=32)
    connect(m, dut.memory, memory.write)
    expected = [JUNK] * 32
    expected[:3] = [int.from_bytes(boot[at : at + 8], "little") for at in (0, 8, 16)]

    async def bench(ctx):
        ctx.set(dut.pixels.valid, 1)  # a pixel waits until `run`
        ctx.set(dut.pixels.payload, 0xEE)
        await send(ctx, dut.load, boot, stall=0.3)
        while memory.contents(ctx)[:3] != expected[:3]:
            await ctx.tick()
        assert memory.contents(ctx) == expected
        ctx.set(dut.pixels.valid, 0)
        ctx.set(dut.run, 1)
        await ctx.tick()
        ctx.set(dut.load.valid, 1)  # nothing is loaded any more
        for frame in frames:
            await check_frame(ctx, dut, memory, frame, height, width, channels)
        for index in range(height * width):
            pixel = frames[-1][index * channels :][:channels]
            expected[IMAGE_BASE + index] = pixel_word(pixel, JUNK)
        assert memory.contents(ctx) == expected

    allow = flip_at_random(memory.allow, low=withheld)
    simulate(m, bench, background=[allow, watch_turns(dut)])
