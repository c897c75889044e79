"""Messages out of bytes: in any pieces, damaged, joined, and with anything between them."""

import random
from dataclasses import replace

import pytest

from bnnhw.gateware.wire import Identity, Reply, Request, boot_image, frame
from bnnhw.host.protocol import Answer, Decoder, Flags, Header, Status, infer, reply_bytes

IDENTITY = Identity(
    height=5, width=5, channels=1, classes=3, clock_hz=23_900_000, baud=3_000_000, name="Größe"
)
IMAGE = bytes(range(25))
BOOT = boot_image(IDENTITY, b"payload", IMAGE, [5, -6, 7, 2])
CONTENT = BOOT.content[: BOOT.identity.header_bytes]
HEADER = Header(BOOT.identity, IMAGE, (5, -6, 7), 2)
ANSWER = Answer(3, False, (1, -2, 3), 2, 1 << 31)
WORDS = b"\1\0\0\0\xfe\xff\xff\xff\3\0\0\0\2\0\0\0\0\0\0\x80"
SENT = {
    frame(Reply.ANSWER, 3, WORDS): ANSWER,
    frame(Reply.SPOILED, 3, WORDS): replace(ANSWER, spoiled=True),
    frame(Reply.STATUS, 0, b"\x09"): Status(Flags.RUNNING | Flags.ROOM),
    frame(Reply.IDENTITY, 0, CONTENT): HEADER,
}


def test_the_bytes_of_a_request():
    """As docs/protocol.md says; its check sum is that of the published CRC-16/MCRF4XX."""
    assert frame(Request.STATUS)[:2] == b"\xb1\x60"
    assert infer(b"\1\2", 2)[:4] == b"\xb1\x42\1\2"
    crc = 0xFFFF
    for byte in b"\x42\1\2":
        for bit in range(8):
            crc = crc >> 1 ^ 0x8408 * ((crc ^ byte >> bit) & 1)
    assert infer(b"\1\2", 2)[4:] == crc.to_bytes(2, "little")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_messages_in_pieces(size):
    decoder, rng = Decoder(3), random.Random(size)
    parts, expected = [], []
    for _ in range(40):
        content, message = rng.choice([*SENT.items()])
        parts += [content, rng.randbytes(rng.choice([0, 0, 3])).replace(b"\xb1", b"")]
        expected.append(message)
    stream = b"".join(parts)
    found = [m for at in range(0, len(stream), size) for m in decoder.feed(stream[at : at + size])]
    assert found == expected
    assert decoder.junk == sum(map(len, parts[1::2]))


@pytest.mark.parametrize("content", SENT)
def test_a_flipped_bit_loses_one_message_and_no_other(content):
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        decoder = Decoder(3)
        status = frame(Reply.STATUS, 0, b"\x09")
        found = decoder.feed(bytes(damaged) + status) + decoder.flush()
        assert found == [Status(Flags(9))] and decoder.junk == len(content)


def test_answers_are_unknown_before_the_identity():
    decoder = Decoder()
    assert decoder.feed(frame(Reply.ANSWER, 3, WORDS)) == []
    assert decoder.feed(frame(Reply.IDENTITY, 0, CONTENT)) == [HEADER]
    assert decoder.feed(frame(Reply.ANSWER, 3, WORDS)) == [ANSWER]


def test_noise_gives_nothing_and_ends():
    decoder = Decoder(3)
    assert decoder.feed(random.Random(1).randbytes(100_000)) + decoder.flush() == []
    assert decoder.junk == 100_000


def test_identity_refuses_what_is_none():
    whole = BOOT.identity.pack()
    assert Identity.unpack(whole) == BOOT.identity
    with pytest.raises(ValueError, match="starts with ffffffff, not 424e4e32"):
        Identity.unpack(b"\xff" * len(whole))
    with pytest.raises(ValueError, match="header has 139 bytes, not 140"):
        Identity.unpack(whole[:8] + bytes([139]) + whole[9:])


def test_the_digest_is_of_all_but_itself():
    others = [
        boot_image(replace(IDENTITY, baud=1), b"payload", IMAGE, [5, -6, 7, 2]),
        boot_image(IDENTITY, b"payloae", IMAGE, [5, -6, 7, 2]),
        boot_image(IDENTITY, b"payload", IMAGE, [5, -6, 8, 2]),
    ]
    assert len({boot.identity.digest for boot in (BOOT, *others)}) == 4
    assert len({boot.check_start for boot in (BOOT, *others)}) == 4


def test_bytes_of_a_reply():
    assert reply_bytes(3) == len(frame(Reply.ANSWER, 3, WORDS)) + 5
