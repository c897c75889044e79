"""A client of a board on a serial port: finds it, asks it, sends it images."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import serial
from serial.tools import list_ports

from bnnhw.errors import UserError
from bnnhw.host.protocol import (
    IN_FLIGHT,
    TAGS,
    Answer,
    Decoder,
    Flags,
    Header,
    Message,
    Status,
    ask_identity,
    ask_status,
    infer,
)

SILENCE = 0.4  # seconds after which a frame's rest is not coming; more than the device's own
ATTEMPTS = 3  # at an identity or an image, before a device is given up
STARTING = 2.0  # seconds in which a device that has its boot image loads what stays
LIMIT = 2.5  # seconds for all of them before a device has said who it is


class Port(Protocol):
    """What a client needs of a port; serial.Serial is one."""

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int = 1) -> bytes: ...
    def write(self, content: bytes) -> int | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Timed:
    """An answer, and the seconds from its image's first byte to its own last."""

    answer: Answer
    seconds: float


def find_port(
    board: str, usb: tuple[int, int, int] | None, ports: Iterable[Any] | None = None
) -> str:
    """Returns the name of the board's serial port, by its USB id.

    usb : vendor, product, and which of that chip's ports it is; None if it is not known.
    ports : as serial.tools.list_ports.comports has them. Raises UserError if there is none, or more
    than one.
    """
    if usb is None:
        raise UserError(f"board {board}: the USB id of its port is not known; name it with --port")
    vendor, product, which = usb
    everything = list_ports.comports() if ports is None else ports
    ours = [p for p in everything if (p.vid, p.pid) == (vendor, product)]
    found = sorted(ours, key=lambda p: p.location or p.device)
    devices = [str(p.device) for p in found]
    if which and len(devices) == which + 1:
        devices = devices[which:]
    if len(devices) == 1:
        return devices[0]
    if not devices:
        raise UserError(
            f"no {board} is plugged in: no serial port has the USB id {vendor:04x}:{product:04x}; "
            "plug it in or name the port with --port"
        )
    raise UserError(f"several ports may be the {board}: {', '.join(devices)}; choose with --port")


def open_port(name: str, baud: int) -> Port:
    """Returns the open port; raises UserError where it is not there or not ours to open."""
    try:
        port = serial.Serial(name, baud, timeout=0, write_timeout=2, exclusive=True)
    except (OSError, ValueError) as fault:
        raise UserError(f"port {name}: {_reason(fault)}; is the board plugged in?") from None
    with suppress(Exception):  # pseudo-terminals and other systems have no such mode
        port.set_low_latency_mode(True)
    port.reset_input_buffer()
    result: Port = port
    return result


def _reason(fault: BaseException) -> str:
    """Returns what the system says of a fault that pyserial may have put words around."""
    inner = fault.__context__.args if fault.__context__ else ()
    number = getattr(fault, "errno", None) or next(iter(inner), None)
    return os.strerror(number) if isinstance(number, int) else str(fault)


class Client:
    """Speaks with one board. Every fault is a UserError of one line that names the port.

    port : open. name : of it. baud : of the line, which says how long frames take.
    patience : times that a board's silence is waited for.
    """

    def __init__(self, port: Port, name: str, baud: int, *, patience: float = 1.0) -> None:
        self._port, self._name, self._baud, self._patience = port, name, baud, patience
        self._decoder = Decoder()
        self._received = 0

    def identify(self) -> Header:
        """Returns the header of the device's boot image, within LIMIT seconds.

        Raises UserError where nothing, or nothing of ours, answers.
        """
        deadline = time.monotonic() + LIMIT * self._patience
        for attempt in range(ATTEMPTS):
            self._write(ask_identity())
            until = min(deadline, time.monotonic() + LIMIT * self._patience / ATTEMPTS)
            for message in self._messages(until):
                if isinstance(message, Header):
                    return message
            if attempt == 0 and not self._received:
                self._write(bytes(8))  # perhaps it takes a frame that was cut
        if self._decoder.junk:
            raise UserError(
                f"port {self._name}: {self._decoder.junk} bytes came, and no frame among them; it "
                f"speaks at another rate than {self._baud} baud, or is no board with bnnhw's "
                "bitstream"
            )
        raise UserError(
            f"port {self._name}: no answer; is the bitstream loaded, and is this the board's port?"
        )

    def status(self) -> Flags:
        """Returns the device's state; raises UserError if it does not say."""
        for _ in range(ATTEMPTS):
            self._write(ask_status())
            for message in self._messages(time.monotonic() + SILENCE * self._patience):
                if isinstance(message, Status):
                    return message.flags
        raise UserError(f"port {self._name}: no status; unplug the board and plug it in again")

    def check(self, header: Header, digest: bytes | None = None) -> None:
        """Raise UserError unless the device runs, and runs the build of a digest if one is given.

        The line says which of gateware and weights is the wrong one.
        """
        found = header.identity
        if digest is not None and found.digest != digest:
            raise UserError(
                f"port {self._name}: its flash holds another network ({found.name or 'unnamed'}, "
                f"{found.digest.hex()[:8]}, not {digest.hex()[:8]}); load the right one with "
                "bnnhw flash"
            )
        until = time.monotonic() + STARTING * self._patience
        while not (flags := self.status()) & Flags.RUNNING:
            if flags & Flags.REFUSED:
                raise UserError(
                    f"port {self._name}: the device refuses its weights "
                    f"({found.name or 'unnamed'}): they are damaged or of another build than the "
                    "bitstream; load both with bnnhw flash"
                )
            if time.monotonic() > until:
                raise UserError(
                    f"port {self._name}: the device does not start; unplug the board and plug it "
                    "in again"
                )

    def run(self, images: Sequence[bytes]) -> Iterator[Timed]:
        """Yields the answer of each image, in order, the next being sent while one is computed.

        A spoiled or lost image is sent again. Raises UserError where one is in ATTEMPTS tries.
        """
        if self._decoder.classes is None:
            self.identify()
        left = deque(range(len(images)))  # of `images`, in order
        under_way: deque[tuple[int, int, float]] = deque()  # index, tag, when it was sent
        done: dict[int, Timed] = {}
        tries = [0] * len(images)
        room, tag, wanted = True, 0, 0
        while wanted < len(images):
            if room and left and len(under_way) < IN_FLIGHT:
                index, room = left.popleft(), False
                tries[index] += 1
                if tries[index] > ATTEMPTS:
                    raise UserError(
                        f"port {self._name}: image {index} did not come through in {ATTEMPTS} "
                        "tries; check the cable, or build for a slower port"
                    )
                tag = (tag + 1) % TAGS
                under_way.append((index, tag, time.monotonic()))
                self._write(infer(images[index], tag))
            heard = False
            for message in self._messages(self._deadline(len(images[0])), first=True):
                heard = True
                if isinstance(message, Status):
                    room = room or bool(message.flags & Flags.ROOM)
                    if not message.flags & Flags.RUNNING:
                        raise UserError(f"port {self._name}: the device has stopped running")
                if isinstance(message, Answer):
                    room = True
                    self._settle(message, under_way, left, done)
            if not heard:  # lost: both sides are silent long enough to begin anew
                left.extendleft(index for index, *_ in reversed(under_way))
                under_way.clear()
                room = True
            while wanted in done:
                yield done.pop(wanted)
                wanted += 1

    @staticmethod
    def _settle(
        answer: Answer,
        under_way: deque[tuple[int, int, float]],
        left: deque[int],
        done: dict[int, Timed],
    ) -> None:
        """Give an answer to its image; those before it have lost theirs and are sent again."""
        if answer.tag not in (tag for _, tag, _ in under_way):
            return
        while under_way:
            index, tag, started = under_way.popleft()
            if tag == answer.tag and not answer.spoiled:
                done[index] = Timed(answer, time.monotonic() - started)
            else:
                left.appendleft(index)
            if tag == answer.tag:
                return

    def _deadline(self, image_bytes: int) -> float:
        """When an answer is late: twice an image's time on the line, and the longest silence."""
        late = 20 * image_bytes / self._baud + 2 * SILENCE
        return time.monotonic() + late * self._patience

    def _messages(self, until: float, *, first: bool = False) -> Iterator[Message]:
        """Yields messages until a time; `first`: those that came with the first one, no more."""
        quiet = time.monotonic()
        while True:
            content = self._read()
            now = time.monotonic()
            messages = self._decoder.feed(content)
            if content:
                quiet = now
                self._received += len(content)
            elif now - quiet > SILENCE * self._patience:
                messages = self._decoder.flush()
                quiet = now
            yield from messages
            if now > until or (first and messages):
                return
            if not content:
                time.sleep(0.0005)

    def _read(self) -> bytes:
        try:
            return self._port.read(max(1, self._port.in_waiting))
        except (OSError, TypeError) as fault:
            raise self._unplugged(fault) from None

    def _write(self, content: bytes) -> None:
        try:
            self._port.write(content)
        except serial.SerialTimeoutException:
            raise UserError(f"port {self._name}: it takes no bytes; unplug the board and plug it "
                            "in again") from None  # fmt: skip
        except OSError as fault:
            raise self._unplugged(fault) from None

    def _unplugged(self, fault: Exception) -> UserError:
        return UserError(f"port {self._name}: lost ({fault}); was the board unplugged?")
