"""The host's side of the protocol: what to send, and messages out of received bytes.

docs/protocol.md has both byte by byte; bnnhw.gateware.wire has its numbers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bnnhw.gateware.wire import (
    IDENTITY_BYTES,
    IN_FLIGHT,
    KIND_AT,
    OVERHEAD,
    SYNC,
    TAG_BITS,
    Flags,
    Identity,
    Reply,
    Request,
    frame,
    intact,
    padded,
)

__all__ = [
    "IN_FLIGHT", "TAGS", "Answer", "Decoder", "Flags", "Header", "Identity", "Message", "Status",
    "ask_identity", "ask_status", "infer", "reply_bytes",
]  # fmt: skip
TAGS = 1 << TAG_BITS
STATUS_BYTES = 1
MAX_HEADER = 1 << 20  # bytes: no board has the memory for a larger image


@dataclass(frozen=True)
class Answer:
    """What the device found in an image. spoiled : the image was damaged on its way: send it anew.

    tag : of the request. logits : of class 0, then of the others. label : the class it named.
    cycles : it took, as bnnhw.gateware.results counts them.
    """

    tag: int
    spoiled: bool
    logits: tuple[int, ...]
    label: int
    cycles: int


@dataclass(frozen=True)
class Status:
    """The device's state. It also comes unasked, when there is room for the next image."""

    flags: Flags


@dataclass(frozen=True)
class Header:
    """The boot image's header, as the flash has it now.

    image, logits, label : the test: bytes of an image, and its answer.
    """

    identity: Identity
    image: bytes
    logits: tuple[int, ...]
    label: int


Message = Answer | Status | Header


def infer(image: bytes, tag: int = 0) -> bytes:
    """Returns the request for an image's answer; tag : less than TAGS, comes back with it."""
    return frame(Request.INFER, tag, image)


def ask_identity() -> bytes:
    """Returns the request for the boot image's header."""
    return frame(Request.IDENTIFY)


def ask_status() -> bytes:
    """Returns the request for the device's state."""
    return frame(Request.STATUS)


def reply_bytes(classes: int) -> int:
    """Returns how many bytes the device sends for an image: an answer, and a status of its own."""
    return OVERHEAD + 4 * (classes + 2) + OVERHEAD + STATUS_BYTES


class Decoder:
    """Finds messages in received bytes; what belongs to none is junk.

    classes : of the device's answers, None until a Header has come: then answers are junk, too.
    junk : bytes skipped so far.
    """

    def __init__(self, classes: int | None = None) -> None:
        self.classes = classes
        self.junk = 0
        self._held = b""

    def feed(self, content: bytes) -> list[Message]:
        """Returns the messages that these bytes complete, in order."""
        self._held += content
        found: list[Message] = []
        while (at := self._held.find(SYNC)) >= 0:
            self._skip(at)
            size = self._size()
            if size is None or len(self._held) < size:
                break
            whole = self._held[:size]
            message = self._message(whole) if size and intact(whole) else None
            if message is None:
                self._skip(1)
            else:
                found.append(message)
                self._held = self._held[size:]
        if at < 0:
            self._skip(len(self._held))
        return found

    def flush(self) -> list[Message]:
        """Returns the messages behind a frame whose rest does not come, which becomes junk."""
        found: list[Message] = []
        while self._held:
            self._skip(1)
            found += self.feed(b"")
        return found

    def _skip(self, count: int) -> None:
        self.junk += count
        self._held = self._held[count:]

    def _size(self) -> int | None:
        """Bytes of the frame that is held first; 0 if it is none, None if more must come."""
        if len(self._held) < 2:
            return None
        kind = self._held[1] >> KIND_AT
        if kind == Reply.STATUS:
            return OVERHEAD + STATUS_BYTES
        if kind in (Reply.ANSWER, Reply.SPOILED) and self.classes is not None:
            return OVERHEAD + 4 * (self.classes + 2)
        if kind == Reply.IDENTITY:
            if len(self._held) < 2 + IDENTITY_BYTES:
                return None
            try:
                size = Identity.unpack(self._held[2 : 2 + IDENTITY_BYTES]).header_bytes
            except ValueError:
                return 0
            return OVERHEAD + size if size <= MAX_HEADER else 0
        return 0

    def _message(self, whole: bytes) -> Message | None:
        kind, tag = whole[1] >> KIND_AT, whole[1] % TAGS
        content = whole[2 : 2 - OVERHEAD]
        if kind == Reply.STATUS:
            return Status(Flags(content[0]))
        if kind == Reply.IDENTITY:
            identity = Identity.unpack(content[:IDENTITY_BYTES])
            image = content[IDENTITY_BYTES:][: identity.frame_bytes]
            *logits, label = struct.unpack(
                f"<{identity.classes}iI", content[IDENTITY_BYTES + padded(identity.frame_bytes) :]
            )
            self.classes = identity.classes
            return Header(identity, image, tuple(logits), label)
        *logits, label, cycles = struct.unpack(f"<{self.classes}iII", content)
        return Answer(tag, kind == Reply.SPOILED, tuple(logits), label, cycles)
