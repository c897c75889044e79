"""The client against ports that behave, misbehave, or are not there: one line, within 3 seconds."""

import struct
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import serial

from bnnhw.errors import UserError
from bnnhw.gateware.wire import Flags, Identity, Reply, Request, boot_image, frame, intact
from bnnhw.host import client as clients
from bnnhw.host.client import Client, find_port, open_port

IDENTITY = Identity(
    height=4, width=3, channels=1, classes=3, clock_hz=24_000_000, baud=3_000_000, name="mine"
)
TEST = bytes(range(12))
BOOT = boot_image(IDENTITY, b"payload", TEST, [66, 67, 68, 2])
HEADER = BOOT.content[: BOOT.identity.header_bytes]
IMAGES = [bytes([number] * 12) for number in range(40)]


class Board:
    """A port with a device whose logits are an image's sum and the two numbers after it.

    flags : its state. spoil, lose : numbers of the images, counted as they come, that get a spoiled
    answer or none. outstanding : the most images it had at once.
    """

    def __init__(self, header=HEADER, flags=Flags.RUNNING | Flags.ROOM, spoil=(), lose=()):
        self.header, self.flags, self.spoil, self.lose = header, flags, set(spoil), set(lose)
        self.received, self.sent, self.images, self.outstanding = b"", b"", 0, 0
        self.queue = []

    @property
    def in_waiting(self):
        return len(self.sent)

    def read(self, size=1):
        if not self.sent and self.queue:
            self.sent += self.queue.pop(0)
        content, self.sent = self.sent[:size], self.sent[size:]
        return content

    def write(self, content):
        if len(content) > 5 and content[1] >> 4 == Request.INFER:
            assert intact(content) and len(content) == 16
            self.infer(content[1] % 4, content[2:-2])
        elif content == frame(Request.IDENTIFY):
            self.sent += frame(Reply.IDENTITY, 0, self.header)
        elif content == frame(Request.STATUS):
            self.sent += frame(Reply.STATUS, 0, bytes([self.flags]))
        return len(content)

    def infer(self, tag, image):
        self.images += 1
        self.sent += frame(Reply.STATUS, 0, bytes([self.flags]))
        if self.images in self.lose:
            return
        words = struct.pack("<3iII", *(sum(image) + more for more in range(3)), 2, 1000)
        kind = Reply.SPOILED if self.images in self.spoil else Reply.ANSWER
        self.queue.append(frame(kind, tag, words))
        self.outstanding = max(self.outstanding, len(self.queue))

    def close(self):
        pass


def speak(port):
    return Client(port, "/dev/ttyX", 3_000_000)


def fault(call, *arguments):
    """The line of a UserError that comes within 3 seconds."""
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert time.monotonic() - started < 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_identifies_and_checks():
    client = speak(Board())
    header = client.identify()
    assert header.identity == BOOT.identity and header.image == TEST
    client.check(header, BOOT.identity.digest)
    client.check(header)


@pytest.mark.parametrize(("spoil", "lose"), [((), ()), ((3, 4, 17), ()), ((), (5,)), ((2,), (7,))])
def test_every_image_gets_its_answer(spoil, lose, monkeypatch):
    monkeypatch.setattr(clients, "SILENCE", 0.05)
    board = Board(spoil=spoil, lose=lose)
    answers = [timed.answer for timed in speak(board).run(IMAGES)]
    assert [answer.logits[0] for answer in answers] == [sum(image) for image in IMAGES]
    assert not any(answer.spoiled for answer in answers)
    assert board.outstanding == 2  # the link is not idle while an image is computed
    assert board.images >= len(IMAGES) + len(spoil) + len(lose)


def test_an_image_that_never_comes_through(monkeypatch):
    monkeypatch.setattr(clients, "SILENCE", 0.05)
    always = Board(spoil=range(100))
    assert "image 0 did not come through in 3 tries" in fault(list, speak(always).run(IMAGES[:1]))


class Silent(Board):
    def write(self, content):
        return len(content)


class Garbage(Silent):
    def read(self, size=1):
        return b"\x00U\xb1\xa0\xff"


class Unplugged(Silent):
    def read(self, size=1):
        raise serial.SerialException("device reports readiness to read but returned no data")


class Stuck(Silent):
    def write(self, content):
        raise serial.SerialTimeoutException("Write timeout")


class Gone(Silent):
    def write(self, content):
        raise OSError(5, "Input/output error")


class Echo(Silent):
    """Another device's port, or a loop."""

    def write(self, content):
        self.sent += content


@pytest.mark.parametrize(
    ("port", "line"),
    [
        (Silent(), "port /dev/ttyX: no answer; is the bitstream loaded"),
        (Garbage(), "bytes came, and no frame among them; it speaks at another rate"),
        (Echo(), "bytes came, and no frame among them"),
        (Unplugged(), "port /dev/ttyX: lost (device reports readiness"),
        (Gone(), "port /dev/ttyX: lost ([Errno 5] Input/output error); was the board unplugged?"),
        (Stuck(), "port /dev/ttyX: it takes no bytes"),
        (Board(header=b"\xff" * len(HEADER)), "no frame among them"),
    ],
)
def test_what_is_no_board(port, line):
    assert line in fault(speak(port).identify)


def test_another_network_and_a_refused_one():
    other = boot_image(replace(IDENTITY, name="theirs"), b"payload", TEST, [66, 67, 68, 2])
    client = speak(Board(header=other.content[: other.identity.header_bytes]))
    line = fault(client.check, client.identify(), BOOT.identity.digest)
    assert "its flash holds another network (theirs" in line and "bnnhw flash" in line
    client = speak(Board(flags=Flags.REFUSED))
    line = fault(client.check, client.identify(), BOOT.identity.digest)
    assert "the device refuses its weights (mine)" in line and "bnnhw flash" in line


class Starting(Board):
    """A device that takes images from its third status on."""

    def write(self, content):
        if content == frame(Request.STATUS):
            self.asked = getattr(self, "asked", 0) + 1
            self.flags = Flags.ROOM | (Flags.RUNNING if self.asked > 2 else 0)
        return super().write(content)


def test_a_device_that_still_starts_is_waited_for(monkeypatch):
    board = Starting()
    client = speak(board)
    client.check(client.identify())
    assert board.asked == 3
    monkeypatch.setattr(clients, "STARTING", 0.1)
    client = speak(Board(flags=Flags.ROOM))
    assert "the device does not start" in fault(client.check, client.identify())


def test_a_device_that_stops_running(monkeypatch):
    board = Board(flags=Flags.REFUSED)
    assert "has stopped running" in fault(list, speak(board).run(IMAGES[:2]))


def test_a_port_that_is_not_there():
    line = fault(open_port, "/dev/ttyNone", 3_000_000)
    assert line.startswith("port /dev/ttyNone: ") and line.endswith("is the board plugged in?")


def port(device, vid, pid, location=None):
    return SimpleNamespace(device=device, vid=vid, pid=pid, location=location)


ICEBREAKER, ULX3S = (0x0403, 0x6010, 1), (0x0403, 0x6015, 0)


def test_ports_are_found_by_their_usb_ids():
    other = port("/dev/ttyUSB9", 0x1A86, 0x7523)
    first, second = (port(f"/dev/ttyUSB{n}", 0x0403, 0x6010, f"1-1:1.{n}") for n in (0, 1))
    assert find_port("icebreaker", ICEBREAKER, [second, other, first]) == "/dev/ttyUSB1"
    assert (
        find_port("ulx3s", ULX3S, [other, port("/dev/ttyUSB3", 0x0403, 0x6015)]) == "/dev/ttyUSB3"
    )
    assert "no ulx3s is plugged in" in fault(find_port, "ulx3s", ULX3S, [other])
    twice = [port(f"/dev/ttyUSB{n}", 0x0403, 0x6015) for n in (1, 2)]
    assert "/dev/ttyUSB1, /dev/ttyUSB2; choose with --port" in fault(
        find_port, "ulx3s", ULX3S, twice
    )
    assert "the USB id of its port is not known" in fault(find_port, "new", None, [])
