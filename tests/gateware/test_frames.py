import random
import struct

import pytest

from bnnhw.gateware.frames import COMMAND, GOOD, SPOILED, Frames
from tests.gateware.bench import simulate
from tests.gateware.streams import receive, send

FRAME, RESULTS, SILENCE = 12, 5, 6
ANSWER = 1 + 4 * RESULTS


def run(sent, frames, *, stall=0.0, pauses=()):
    """Send bytes; play an engine for `frames` images; return (answers, images).

    pauses : indexes of `sent` before which the host is silent for long.
    """
    dut = Frames(frame_bytes=FRAME, n_results=RESULTS, timeout_bits=SILENCE)
    answers, images = [], []

    async def host(ctx):
        ctx.set(dut.enable, 1)
        for index, value in enumerate(sent):
            if index in pauses:
                await ctx.tick().repeat(3 << SILENCE)
            await send(ctx, dut.received, [value])

    async def reader(ctx):
        for _ in range(frames):
            answers.append(bytes(await receive(ctx, dut.answer, ANSWER, stall=stall)))

    async def engine(ctx):
        for frame in range(frames):
            images.append(bytes(await receive(ctx, dut.pixels, FRAME, stall=stall)))
            await ctx.tick().repeat(20)
            await send(ctx, dut.results, results_of(frame), stall=stall)

    simulate(dut, host, reader, engine)
    return answers, images


def results_of(frame):
    rng = random.Random(frame)
    return [rng.randrange(-(1 << 31), 1 << 31) for _ in range(RESULTS)]


def good(frame):
    return struct.pack(f"<B{RESULTS}i", GOOD, *results_of(frame))


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_frames(stall):
    first, second = random.Random(1).randbytes(FRAME), random.Random(2).randbytes(FRAME)
    sent = bytes([COMMAND]) + first
    answers, images = run(sent, 1, stall=stall)
    assert (answers, images) == ([good(0)], [first])
    sent += bytes([0, 1, 2])
    answers, _ = run(sent, 1, stall=stall)
    assert answers[0][0] == SPOILED
    pauses = {FRAME + 1}
    answers, images = run(bytes([COMMAND]) + first + bytes([COMMAND]) + second, 2,
                          stall=stall, pauses=pauses)  # fmt: skip
    assert (answers, images) == ([good(0), good(1)], [first, second])


def test_other_bytes_before_the_command_are_ignored():
    image = random.Random(1).randbytes(FRAME)
    answers, images = run(b"\x00\xff\x10" + bytes([COMMAND]) + image, 1)
    assert (answers, images) == ([good(0)], [image])


@pytest.mark.parametrize("missing", [1, 5, FRAME])
def test_short_frame_is_filled_and_the_next_is_good(missing):
    image = random.Random(1).randbytes(FRAME)
    short = bytes([COMMAND]) + image[missing:]
    answers, images = run(short + bytes([COMMAND]) + image, 2, pauses={len(short)})
    assert answers[0][0] == SPOILED and len(answers[0]) == ANSWER
    assert answers[1] == good(1) and images[1] == image


def test_disabled_drops_bytes():
    dut = Frames(frame_bytes=FRAME, n_results=RESULTS, timeout_bits=SILENCE)

    async def host(ctx):
        await send(ctx, dut.received, [COMMAND, 1, 2])
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.pixels.valid)

    simulate(dut, host)


def test_bad_parameters():
    with pytest.raises(ValueError, match="frame_bytes=0"):
        Frames(frame_bytes=0, n_results=3, timeout_bits=5)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [([], "a result without a frame"), ([COMMAND, 1, 2], "a result before the frame's last pixel")],
)
def test_a_result_at_the_wrong_time_is_a_fault(sent, fault):
    dut = Frames(frame_bytes=FRAME, n_results=RESULTS, timeout_bits=SILENCE)

    async def host(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.pixels.ready, 1)
        await send(ctx, dut.received, sent)
        ctx.set(dut.results.valid, 1)
        await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError, match=fault):
        simulate(dut, host)
