"""The core's parts, and the core around a stand-in for the engine."""

import random

import pytest

from bnnhw.gateware.core import Core, Words
from bnnhw.gateware.ram import Ram
from tests.flow.fakes import FakeEngine
from tests.gateware.bench import simulate
from tests.gateware.streams import send, send_words

FRAME, CLASSES = 6, 2
IMAGE = [0x1122334455660007, 5]


async def receive_marked(ctx, port, last, count, stall):
    """Takes words; returns each with whether it was a frame's last."""
    rng, found = random.Random(1), []
    while len(found) < count:
        ready = rng.random() >= stall
        ctx.set(port.ready, ready)
        _, _, valid, word, end = await ctx.tick().sample(port.valid, port.payload, last)
        if valid and ready:
            found.append((word, end))
    ctx.set(port.ready, 0)
    return found


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_words(stall):
    dut, rng = Words(), random.Random(1)
    frames = [[rng.randrange(-(1 << 31), 1 << 31) for _ in range(4)] for _ in range(3)]
    got = []

    async def feed(ctx):
        for seed, frame in enumerate(frames):
            await send_words(ctx, dut.i, frame, stall=stall, seed=seed)

    async def drain(ctx):
        got.extend(await receive_marked(ctx, dut.o, dut.last, 12, stall))

    simulate(dut, feed, drain)
    assert [word for word, _ in got] == [word for frame in frames for word in frame]
    assert [last for _, last in got] == 3 * [0, 0, 0, 1]


@pytest.mark.parametrize("exclusive", [True, False])
def test_ram_against_a_list(exclusive):
    rng = random.Random(2)
    words = [rng.getrandbits(64) for _ in range(16)]
    dut = Ram(16, apart=8, init=words[:9], exclusive=exclusive)
    words[9:] = [0] * 7

    async def bench(ctx):
        port, expected = dut.port, None
        for _ in range(400):
            at, write, mask = rng.randrange(16), rng.random() < 0.5, rng.getrandbits(8)
            data = rng.getrandbits(64)
            nibbles = sum((mask >> byte & 1) * 3 << 2 * byte for byte in range(8))
            ctx.set(port.address, at)
            ctx.set(port.write, write)
            ctx.set(port.write_mask, nibbles)
            ctx.set(port.write_data, data)
            await ctx.tick()
            if write:
                chosen = sum((mask >> byte & 1) * 255 << 8 * byte for byte in range(8))
                words[at] = (words[at] & ~chosen) | (data & chosen)
            else:
                expected = words[at]
                assert ctx.get(port.read_data) == expected

    simulate(dut, bench)


def test_ram_too_small():
    with pytest.raises(ValueError, match="init: 3 words, the memory has 2"):
        Ram(2, init=[1, 2, 3])


@pytest.mark.parametrize("inside", [True, False])
def test_frames_to_words(inside):
    """Answers as the stand-in gives them, which adds a word of its image."""
    engine = FakeEngine(frame_bytes=FRAME, classes=CLASSES)
    dut = Core(engine, IMAGE, words=4, inside=inside)
    frames = [random.Random(seed).randbytes(FRAME) for seed in range(3)]
    got = []

    async def feed(ctx):
        assert hasattr(dut, "load") is not inside
        if not inside:
            content = b"".join(word.to_bytes(8, "little") for word in IMAGE)
            await send(ctx, dut.load, content[:-1], stall=0.3)
            await ctx.tick().repeat(20)
            assert not ctx.get(dut.ready)
            await send(ctx, dut.load, content[-1:])
        await ctx.tick().until(dut.ready)
        for seed, frame in enumerate(frames):
            await send(ctx, dut.pixels, frame, stall=0.3, seed=seed)

    async def drain(ctx):
        got.extend(await receive_marked(ctx, dut.results, dut.last, 3 * (CLASSES + 2), 0.5))

    simulate(dut, feed, drain)
    expected = [sum(frame) + 7 * index for frame in frames for index in range(CLASSES + 2)]
    assert [word for word, _ in got] == expected
    assert [last for _, last in got] == 3 * [0, 0, 0, 1]
