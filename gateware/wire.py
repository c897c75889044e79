"""The host's protocol and the boot image in plain numbers; docs/protocol.md has every byte.

A frame is SYNC, a byte of kind (upper four bits) and tag (lower two), what the kind brings, and a
CRC-16 of all but SYNC. All numbers are little-endian but the boot image's check sum.
"""

import hashlib
import struct
import zlib
from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

VERSION = 1
SYNC = 0xB0 | VERSION
TAG_BITS, KIND_AT = 2, 4  # of a frame's second byte; what is between means nothing
CRC_BITS, CRC_BYTES = 16, 2
CRC_START, CRC_POLYNOMIAL = 0xFFFF, 0x8408  # of CRC-16/MCRF4XX: 0x1021, lowest bit first
OVERHEAD = 2 + CRC_BYTES  # bytes of a frame that brings nothing
IN_FLIGHT = 2  # images at once: one computed, one arriving


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Request(IntEnum):
    """Kinds of frames from the host. INFER brings an image, the others nothing."""

    INFER = 0x4
    IDENTIFY = 0x5
    STATUS = 0x6


class Reply(IntEnum):
    """Kinds of frames from the device; only the tags of answers mean anything.

    ANSWER, SPOILED : bring the words of an answer. IDENTITY : the boot image's header.
    STATUS : a byte of Flags.
    """

    ANSWER = 0x8
    SPOILED = 0x9
    IDENTITY = 0xA
    STATUS = 0xC


class Flags(IntFlag):
    """A device's state.

    RUNNING : booted, and the weights that stay are in their buffers: it takes images. REFUSED : its
    boot image is damaged or of another build. BUSY : an image is being worked on. ROOM : the next
    image may be sent. Without RUNNING and REFUSED it still starts.
    """

    RUNNING = 1
    REFUSED = 2
    BUSY = 4
    ROOM = 8


def frame(kind: int, tag: int = 0, content: bytes = b"") -> bytes:
    """Returns the bytes of a frame."""
    checked = bytes([kind << KIND_AT | tag]) + content
    return bytes([SYNC]) + checked + frame_check(checked).to_bytes(CRC_BYTES, "little")


def intact(whole: bytes) -> bool:
    """Returns whether the bytes of a frame have the right check sum."""
    return frame_check(whole[1:]) == 0


def frame_check(content: bytes) -> int:
    """Returns CRC-16/MCRF4XX: the common CRC-CCITT, bytes and result bit-reversed."""
    common = crc_hqx(content.translate(_REVERSED), CRC_START)
    return reversed_bits(common, CRC_BITS)


MAGIC = b"BNN2"
CHECK_BITS, CHECK_BYTES = 32, 4
UNIT_BYTES = 4  # the header and the payload are multiples of it
CHECK_POLYNOMIAL = 0x04C1_1DB7
CHECK_START = 0xFFFF_FFFF  # of a boot image that is bound to no build
_HEADER = struct.Struct("<4sHHIIHHHHII32s28sf")
_NAME_BYTES = 28
IDENTITY_BYTES = _HEADER.size


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a boot image says of itself in its first IDENTITY_BYTES.

    height, width, channels : of an image, a byte each. classes : logits of an answer.
    payload_bytes : program and weights. clock_hz, baud : of the gateware built with it.
    digest : SHA-256 of header and payload, itself as zeros. name : of the network, as much as fits.
    step : real value of a logit's last bit, 0 if it is not known.
    """

    height: int
    width: int
    channels: int
    classes: int
    clock_hz: int
    baud: int
    payload_bytes: int = 0
    digest: bytes = bytes(32)
    name: str = ""
    step: float = 0.0
    version: int = VERSION

    @property
    def frame_bytes(self) -> int:
        """Bytes of an image."""
        return self.height * self.width * self.channels

    @property
    def header_bytes(self) -> int:
        """Bytes of the boot image before its payload."""
        return header_bytes(self.frame_bytes, self.classes)

    def pack(self) -> bytes:
        """Returns the IDENTITY_BYTES."""
        name = self.name.encode()[:_NAME_BYTES].decode(errors="ignore").encode()
        return _HEADER.pack(
            MAGIC, self.version, self.classes, self.header_bytes, self.payload_bytes,
            self.height, self.width, self.channels, IN_FLIGHT, self.clock_hz, self.baud,
            self.digest, name, self.step,
        )  # fmt: skip

    @classmethod
    def unpack(cls, content: bytes) -> "Identity":
        """Inverse of `pack`; raises ValueError, saying why, where it is no identity."""
        if len(content) != IDENTITY_BYTES:
            raise ValueError(f"its identity has {len(content)} bytes, not {IDENTITY_BYTES}")
        (magic, version, classes, header, payload, height, width, channels, _, clock_hz, baud,
         digest, name, step) = _HEADER.unpack(content)  # fmt: skip
        if magic != MAGIC:
            raise ValueError(f"it starts with {magic.hex()}, not {MAGIC.hex()}")
        found = cls(
            height=height, width=width, channels=channels, classes=classes, payload_bytes=payload,
            clock_hz=clock_hz, baud=baud, digest=digest, version=version, step=step,
            name=name.rstrip(b"\0").decode(errors="replace"),
        )  # fmt: skip
        if header != found.header_bytes:
            raise ValueError(f"its header has {header} bytes, not {found.header_bytes}")
        return found


def header_bytes(frame_bytes: int, classes: int) -> int:
    """Returns the bytes of a header: identity, the test's image, its logits and its class.

    Zeros behind the image fill its last UNIT_BYTES up.
    """
    return IDENTITY_BYTES + padded(frame_bytes) + 4 * (classes + 1)


def padded(size: int) -> int:
    """Returns the least multiple of UNIT_BYTES that is at least `size`."""
    return -(-size // UNIT_BYTES) * UNIT_BYTES


def checksum(content: bytes, start: int = CHECK_START) -> int:
    """Returns CRC-32/MPEG-2 from `start`: the common CRC-32, bits reversed, and not inverted."""
    common = zlib.crc32(content.translate(_REVERSED), ~reversed_bits(start, 32) & 0xFFFF_FFFF)
    return reversed_bits(~common & 0xFFFF_FFFF, 32)


def bzip2_checksum(content: bytes) -> int:
    """Returns CRC-32/BZIP2: the same from CHECK_START, inverted."""
    return ~checksum(content) & 0xFFFF_FFFF


def reversed_bits(word: int, width: int) -> int:
    """Returns a number of `width` bits whose lowest bit is the word's highest."""
    return int(f"{word:0{width}b}"[::-1], 2)


@dataclass(frozen=True)
class BootImage:
    """What the flash holds.

    identity : with the digest. test : an image and its answer: its logits, then its class.
    check_start : what the check sum starts from. No two starts give the same check sum, so gateware
        that starts from another refuses the image.
    """

    identity: Identity
    test: bytes
    payload: bytes
    check_start: int

    @property
    def content(self) -> bytes:
        """The bytes to write to the flash."""
        content = self.identity.pack() + self.test + self.payload
        return content + checksum(content, self.check_start).to_bytes(CHECK_BYTES, "big")


def boot_image(
    identity: Identity, payload: bytes, image: bytes, answer: Sequence[int], *, bound: bool = True
) -> BootImage:
    """Returns the boot image of a payload; `identity` lacks its digest and payload_bytes.

    image, answer : of the test: frame_bytes bytes; the logits, then the class.
    bound : whether only gateware of this very build takes it, or any of the same sizes.
    Raises ValueError where the test does not have the identity's sizes.
    """
    if len(image) != identity.frame_bytes or len(answer) != identity.classes + 1:
        raise ValueError(
            f"test: {len(image)} bytes and {len(answer)} words, must be {identity.frame_bytes} "
            f"and {identity.classes + 1}"
        )
    test = image.ljust(padded(len(image)), b"\0") + struct.pack(f"<{len(answer)}i", *answer)
    identity = replace(identity, payload_bytes=len(payload), digest=bytes(32))
    digest = hashlib.sha256(identity.pack() + test + payload).digest()
    start = int.from_bytes(digest[:4], "big") if bound else CHECK_START
    return BootImage(replace(identity, digest=digest), test, payload, start)
