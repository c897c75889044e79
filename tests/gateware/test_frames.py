"""The host's frames, in and out, with an engine played by the bench; both ways at once."""

import random
from itertools import count
from types import SimpleNamespace

import pytest
from amaranth.hdl import Module, Signal

from bnnhw.gateware.frames import Inbox, Outbox, frame_checksum
from bnnhw.gateware.wire import SYNC, Flags, Identity, Request, boot_image, frame, frame_check
from bnnhw.host.protocol import Answer, Decoder, Header, Status, ask_identity, ask_status, infer
from tests.gateware.bench import simulate
from tests.gateware.streams import receive, send, send_words

IDENTITY = Identity(height=2, width=3, channels=2, classes=3, clock_hz=24_000_000, baud=3_000_000)
FRAME, RESULTS, SILENCE = 12, 5, 6
BOOT = boot_image(IDENTITY, b"payload", bytes(range(FRAME)), [7, -8, 9, 2])
HEADER = BOOT.content[: BOOT.identity.header_bytes]
ROOM = Status(Flags.RUNNING | Flags.ROOM)


def results_of(image):
    """What the engine of this bench finds in an image."""
    rng = random.Random(bytes(image))
    logits = [rng.randrange(-(1 << 31), 1 << 31) for _ in range(RESULTS - 2)]
    return [*logits, rng.randrange(3), rng.randrange(1 << 31)]


def answer_of(image, tag):
    *logits, label, cycles = results_of(image)
    return Answer(tag, False, tuple(logits), label, cycles)


def build():
    """An inbox and an outbox wired as in a device: (module, inbox, outbox)."""
    m = Module()
    m.submodules.inbox = inbox = Inbox(frame_bytes=FRAME)
    m.submodules.outbox = outbox = Outbox()
    silence = Signal(SILENCE + 1)
    with m.If(inbox.waiting):
        m.d.sync += silence.eq(silence + 1)
    with m.Else():
        m.d.sync += silence.eq(0)
    m.d.comb += inbox.late.eq(silence[-1])
    for name in ("taken", "spoiled", "tag", "identify", "status"):
        m.d.comb += getattr(outbox, name).eq(getattr(inbox, name))
    m.d.comb += inbox.free.eq(outbox.free)
    return m, inbox, outbox


def play(inbox, outbox, images, *, stall=0.0, compute=0):
    """Benches that play engine and flash; the engine has room for an image beside its work.

    images : gets what the engine takes. compute : cycles that one takes, and a quarter of them
    before the next may come.
    """

    async def pixels(ctx):
        while True:
            images.append(bytes(await receive(ctx, inbox.pixels, FRAME, stall=stall)))
            await ctx.tick().repeat(1 + compute // 4)

    async def results(ctx):
        ctx.set(outbox.flags, Flags.RUNNING | Flags.ROOM)
        for at in count():
            while len(images) <= at:
                await ctx.tick()
            await ctx.tick().repeat(1 + compute)
            await send_words(ctx, outbox.results, results_of(images[at]))

    async def flash(ctx):
        while True:
            for index, byte in enumerate(HEADER):
                while not ctx.get(outbox.read):
                    await ctx.tick()
                ctx.set(outbox.last, index == len(HEADER) - 1)
                await send(ctx, outbox.header, [byte], stall=stall, seed=index)

    return pixels, results, flash


async def put(ctx, inbox, byte):
    """A byte as the receiver has it: bit by bit, and then whole."""
    for place in range(8):
        ctx.set(inbox.bit, byte >> place & 1)
        ctx.set(inbox.shift, 1)
        await ctx.tick()
    ctx.set(inbox.shift, 0)
    await send(ctx, inbox.received, [byte])


async def get(ctx, outbox, *, stall=0.0):
    """A byte as the transmitter takes it: once it is offered, bit by bit without asking."""
    rng, byte = random.Random(1), 0
    await ctx.tick().until(outbox.answer.valid)
    for place in range(8):
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(outbox.index, place)
        ctx.set(outbox.answer.ready, 1)
        bit, valid = ctx.get(outbox.answer.payload), ctx.get(outbox.answer.valid)
        await ctx.tick()
        ctx.set(outbox.answer.ready, 0)
        assert valid
        byte |= bit << place
    ctx.set(outbox.index, 0)
    return byte


def run(sent, *, until, stall=0.0, pauses=(), enable=1, compute=20, gap=0):
    """Send bytes; play engine and flash; return the messages got once `until` have come.

    pauses : indexes of `sent` before which the host is silent for long. gap : cycles between any
    two bytes. compute : as in `play`.
    Also returns the images that the engine took, and how many bytes belonged to no message.
    """
    m, inbox, outbox = build()
    seen = SimpleNamespace(messages=[], images=[])
    decoder = Decoder(IDENTITY.classes)

    async def host(ctx):
        ctx.set(inbox.enable, enable)
        for index, value in enumerate(sent):
            await ctx.tick().repeat(3 << SILENCE if index in pauses else 1 + gap)
            await put(ctx, inbox, value)

    async def reader(ctx):
        while len(seen.messages) < until:
            seen.messages += decoder.feed(bytes([await get(ctx, outbox, stall=stall)]))
        await ctx.tick().repeat(3 << SILENCE)
        assert not ctx.get(outbox.answer.valid)

    world = play(inbox, outbox, seen.images, stall=stall, compute=compute)
    simulate(m, host, reader, background=world)
    seen.junk = decoder.junk
    return seen


def image(seed):
    return random.Random(seed).randbytes(FRAME)


def test_checksum_is_the_hosts():
    dut = frame_checksum()

    async def bench(ctx):
        for size in (1, 2, 9, 50):
            content = random.Random(size).randbytes(size)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.shift, 1)
            for place in range(8 * size):
                ctx.set(dut.bit, content[place // 8] >> place % 8 & 1)
                await ctx.tick()
            check = 0
            for place in range(16):
                check |= ctx.get(dut.lowest) << place
                ctx.set(dut.bit, ctx.get(dut.lowest))
                assert not ctx.get(dut.differs)
                await ctx.tick()
            assert check == frame_check(content)
            ctx.set(dut.shift, 0)

    simulate(dut, bench)


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_an_image_gets_room_and_its_answer(stall):
    seen = run(infer(image(1), 3), until=2, stall=stall)
    assert seen.messages == [ROOM, answer_of(image(1), 3)]
    assert seen.images == [image(1)] and not seen.junk


def test_an_image_arrives_while_the_one_before_is_computed():
    """The second's answer comes right after the first's, though it had ended long before."""
    first = infer(image(1), 1)
    seen = run(first + infer(image(2), 2), until=4, compute=400, pauses={len(first)})
    answers = [message for message in seen.messages if isinstance(message, Answer)]
    assert answers == [answer_of(image(1), 1), answer_of(image(2), 2)]
    assert seen.messages.count(ROOM) == 2 and seen.messages[0] == ROOM


def test_identity_and_status():
    seen = run(ask_status() + ask_identity(), until=2, gap=30)
    header = Header(BOOT.identity, bytes(range(FRAME)), (7, -8, 9), 2)
    assert seen.messages == [ROOM, header] and not seen.junk


def test_requests_while_an_answer_is_sent_are_kept():
    sent = infer(image(1), 1) + ask_identity() + ask_status()
    seen = run(sent, until=4, stall=0.5, gap=50)
    kinds = sorted(type(message).__name__ for message in seen.messages)
    assert kinds == ["Answer", "Header", "Status", "Status"]


def test_an_image_is_refused_until_the_device_runs():
    seen = run(infer(bytes(FRAME)), until=1, enable=0)
    assert [type(message) for message in seen.messages] == [Status] and not seen.images


@pytest.mark.parametrize("bit", [20, 8 * FRAME, 8 * (FRAME + 2), 8 * (FRAME + 3) + 7])
def test_a_flipped_bit_spoils_an_image(bit):
    whole = bytearray(infer(image(1), 3))
    whole[bit // 8] ^= 1 << bit % 8
    seen = run(bytes(whole) + infer(image(2), 1), until=4, pauses={len(whole)})
    spoiled, good = (m for m in seen.messages if isinstance(m, Answer))
    assert spoiled.spoiled and spoiled.tag == 3
    assert good == answer_of(image(2), 1)


@pytest.mark.parametrize("missing", [1, 2, 3, 8, FRAME + 2])
def test_a_short_image_is_filled_and_the_next_is_good(missing):
    whole = infer(image(1), 3)[:-missing]
    seen = run(whole + infer(image(2), 1), until=4, pauses={len(whole)})
    spoiled, good = (m for m in seen.messages if isinstance(m, Answer))
    assert spoiled.spoiled and spoiled.tag == 3
    assert good == answer_of(image(2), 1) and seen.images[1] == image(2)


WRONG = (
    frame(Request.IDENTIFY)[:-1] + b"x", frame(0x7), frame(0x8), frame(Request.STATUS)[:2],
    frame(Request.IDENTIFY)[:3],
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_requests_get_no_reply_and_the_next_gets_its(wrong):
    seen = run(wrong + ask_status(), until=1, pauses={len(wrong)})
    assert seen.messages == [ROOM]


def test_bytes_between_frames_are_ignored():
    seen = run(b"\x00\xff\x10" + bytes([SYNC, 0x70]) + ask_status(), until=1)
    assert seen.messages == [ROOM]


def test_hostile_bytes():
    """A thousand strings, cut, changed and joined; then silence, and a good frame works."""
    rng = random.Random(7)
    parts = [infer(image(3), 3), ask_identity(), ask_status(), bytes([SYNC]), b"\x41", b"\xb1\x40"]
    m, inbox, outbox = build()
    decoder = Decoder(IDENTITY.classes)
    good = []

    async def host(ctx):
        ctx.set(inbox.enable, 1)
        for number in range(1_000):
            content = bytearray(b"".join(rng.choices(parts, k=rng.randrange(1, 4))))
            for _ in range(rng.choice([0, 1, 5])):
                content[rng.randrange(len(content))] = rng.randrange(256)
            for byte in content[: rng.randrange(1, len(content) + 1)]:
                await put(ctx, inbox, byte)
            if number % 50 == 0:
                await ctx.tick().repeat(3 << SILENCE)
                for byte in infer(image(number), number % 4):
                    await put(ctx, inbox, byte)
                good.append(answer_of(image(number), number % 4))
                await ctx.tick().repeat(3 << SILENCE)

    answers = []

    async def reader(ctx):
        while True:
            for message in decoder.feed(bytes([await get(ctx, outbox)])):
                if isinstance(message, Answer) and not message.spoiled:
                    answers.append(message)

    world = play(inbox, outbox, [])
    simulate(m, host, background=[*world, reader], cycles=1_000_000)
    extra = answer_of(image(3), 3)  # a whole frame among the hostile ones
    assert [answer for answer in answers if answer != extra] == good


def test_bad_parameters():
    with pytest.raises(ValueError, match="frame_bytes=0"):
        Inbox(frame_bytes=0)
