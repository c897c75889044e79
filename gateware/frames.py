"""Frames on the serial port: requests in, answers out; docs/protocol.md has them byte by byte.

`Inbox` takes the host's requests apart, `Outbox` sends the device's replies; both run at once, so
that an image can arrive while the one before it is computed and answered.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check, check_held
from bnnhw.gateware.checksum import Checksum
from bnnhw.gateware.results import WORD_BITS as BITS
from bnnhw.gateware.results import ResultBit
from bnnhw.gateware.wire import (
    CRC_BITS,
    CRC_POLYNOMIAL,
    CRC_START,
    KIND_AT,
    SYNC,
    TAG_BITS,
    Flags,
    Request,
)  # fmt: skip


def frame_checksum() -> Checksum:
    """Returns the check sum of a frame: its bits come as on the line, a byte's lowest first."""
    return Checksum(width=CRC_BITS, polynomial=CRC_POLYNOMIAL, init=CRC_START)


class Inbox(wiring.Component):
    """Takes requests apart: hands images on as they come, then says whether they were whole.

    A frame is dropped if its check sum is wrong or `late` comes in it. But an image's rest is made
    up, and it is spoiled. Bytes between frames are ignored.

    Parameters
    ----------
    frame_bytes : int     bytes of an image

    Members
    -------
    received : In(stream of 8 bits)     from the serial port
    shift, bit : In(1)                  a bit of them as it comes, lowest first; bit with shift
    late : In(1)                        no byte has come for long
    waiting : Out(1)                    a byte is awaited: `late` counts from when it was 0 last
    pixels : Out(stream of 8 bits)      images
    enable : In(1)                      while 0, images are dropped
    taken : Out(1)                      strobe: an image has ended
    spoiled : Out(1)                    it was not what the host sent; valid with taken
    tag : Out(2)                        the host's; valid with taken
    free : In(1)                        an image may end now
    identify, status : Out(1)           strobes: the host is to have this reply; with taken, there
                                        is room for the next image
    """

    received: In(stream.Signature(8))
    shift: In(1)
    bit: In(1)
    late: In(1)
    waiting: Out(1)
    pixels: Out(stream.Signature(8))
    enable: In(1)
    taken: Out(1)
    spoiled: Out(1)
    tag: Out(TAG_BITS)
    free: In(1)
    identify: Out(1)
    status: Out(1)

    def __init__(self, *, frame_bytes: int) -> None:
        if frame_bytes < 1:
            raise ValueError(f"frame_bytes={frame_bytes}: must be at least 1")
        self._frame_bytes = frame_bytes
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = frame_checksum()
        remaining = Signal(range(self._frame_bytes))
        infer, identify = Signal(), Signal()  # the frame's kind
        upper = Signal()  # the next byte is the upper one of the check sum
        wrong, gone = Signal(), Signal()  # the check sum; the frame's rest, which is made up
        received, byte = self.received, Signal()
        m.d.comb += [
            byte.eq(received.valid & received.ready),
            crc.bit.eq(self.bit),
            crc.shift.eq(self.shift),
            self.waiting.eq(~received.valid),
            self.pixels.payload.eq(received.payload),
            self.spoiled.eq(gone | wrong),
            received.ready.eq(1),
        ]
        pixel = self.pixels.valid & self.pixels.ready
        with m.If(crc.start):
            m.d.sync += remaining.eq(self._frame_bytes - 1)
        with m.Elif(pixel):
            m.d.sync += remaining.eq(remaining - 1)
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [crc.start.eq(1), self.waiting.eq(0)]
                m.d.sync += [upper.eq(0), wrong.eq(0), gone.eq(0)]
                with m.If(byte & (received.payload == SYNC)):
                    m.next = "Kind"
            with m.State("Kind"):
                m.d.sync += self.tag.eq(received.payload)
                with m.If(byte):
                    self._kind(m, infer, identify)
                with m.Elif(self.late):
                    m.next = "Idle"
            with m.State("Image"):
                m.d.comb += [
                    self.pixels.valid.eq(received.valid | gone),
                    received.ready.eq(self.pixels.ready),
                ]
                with m.If(self.late):
                    m.d.sync += gone.eq(1)
                with m.If(pixel & (remaining == 0)):
                    m.next = "Check"
            with m.State("Check"):
                with m.If(self.shift & crc.differs):
                    m.d.sync += wrong.eq(1)
                with m.If(self.late):
                    m.d.sync += gone.eq(1)
                with m.If(byte):
                    m.d.sync += upper.eq(1)
                with m.If(gone | (byte & upper)):
                    m.next = "End"
            with m.State("End"):
                m.d.comb += received.ready.eq(0)
                self._end(m, infer, identify)
        return m

    def _kind(self, m: Module, infer: Signal, identify: Signal) -> None:
        """What follows the byte of a frame's kind."""
        kind = self.received.payload[KIND_AT:]
        m.d.sync += [infer.eq(kind == Request.INFER), identify.eq(kind == Request.IDENTIFY)]
        m.next = "Idle"
        with m.Switch(kind):
            with m.Case(Request.INFER):
                with m.If(self.enable):
                    m.next = "Image"
                with m.Else():
                    m.d.comb += self.status.eq(1)
            with m.Case(Request.IDENTIFY, Request.STATUS):
                m.next = "Check"

    def _end(self, m: Module, infer: Signal, identify: Signal) -> None:
        """An image waits for the answer before and for room; a request is passed on at once."""
        m.next = "Idle"
        with m.If(infer):
            ends = self.free & self.pixels.ready
            m.d.comb += [self.taken.eq(ends), self.status.eq(ends)]
            with m.If(~ends):
                m.next = "End"
        with m.Elif(~self.spoiled):
            m.d.comb += [self.identify.eq(identify), self.status.eq(~identify)]


class Outbox(wiring.Component):
    """Sends replies: an answer once its image and its results are there, and what is asked.

    The status that comes with `taken` is sent before the answer.

    Members
    -------
    answer : Out(stream of 1 bit)            to the serial port, lowest first
    index : In(3)                            which bit of a byte it takes next
    results : In(stream of ResultBit)        an image's words
    taken, spoiled, tag : In                 an image has ended; as Inbox has them
    free : Out(1)                            the next image may end
    identify, status : In(1)                 strobes, kept until their replies are sent
    flags : In(4)                            of the status
    read : Out(1)                            the flash's header is wanted
    header : In(stream of 8 bits)            it
    last : In(1)                             with its last byte
    failed : In(1)                           no result comes any more, for good; where this can be

    An image at work is then answered as spoiled, its words 0; an answer that has begun ends without
    its check sum.

    Parameters
    ----------
    results : int      words of an answer, where the engine may fail; else None
    """

    def __init__(self, *, results: int | None = None) -> None:
        self._words = results
        super().__init__(
            {
                "answer": Out(stream.Signature(1)),
                "index": In(3),
                "results": In(stream.Signature(ResultBit)),
                "taken": In(1),
                "spoiled": In(1),
                "tag": In(TAG_BITS),
                "free": Out(1),
                "identify": In(1),
                "status": In(1),
                "flags": In(len(Flags)),
                "read": Out(1),
                "header": In(stream.Signature(8)),
                "last": In(1),
            }
            | ({} if results is None else {"failed": In(1)})
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = frame_checksum()
        wants_identity, wants_status = Signal(), Signal()
        ended = Signal(data.StructLayout({"valid": 1, "spoiled": 1, "tag": TAG_BITS}))
        spoiled, identity, status = Signal(), Signal(), Signal()  # the reply; else it is an answer
        # Reply's numbers are made for this.
        kind = Cat(ended.tag, Const(0, KIND_AT - TAG_BITS), spoiled, identity, status, 1)
        answer, byte_end = self.answer, Signal()
        upper = Signal()  # byte of the check sum
        made_up = Const(0)
        if self._words is not None:
            made_up = Signal(range(BITS * self._words + 1))
        m.d.comb += [
            self.free.eq(~ended.valid),
            crc.bit.eq(answer.payload),
            crc.shift.eq(answer.ready),
            byte_end.eq(answer.ready & self.index.all()),
            answer.valid.eq(1),
        ]
        check_held(m, platform, "results", self.results)
        check(m, platform, ~(self.taken & ended.valid), "an image ends before the last's answer")
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += answer.valid.eq(0)
                there, wrong = self.results.valid, ended.spoiled
                if self._words is not None:
                    there, wrong = there | self.failed, wrong | self.failed
                    m.d.sync += made_up.eq(Mux(self.failed, BITS * self._words, 0))
                answers = ended.valid & there & ~wants_status
                m.d.sync += [
                    spoiled.eq(answers & wrong),
                    status.eq(wants_status),
                    identity.eq(~answers & ~wants_status),
                    wants_status.eq(0),
                    wants_identity.eq(wants_identity & (answers | wants_status)),
                ]
                with m.If(answers | wants_status | wants_identity):
                    m.next = "Sync"
            with m.State("Sync"):
                m.d.comb += [answer.payload.eq(Const(SYNC, 8).bit_select(self.index, 1))]
                m.d.comb += crc.start.eq(1)
                with m.If(byte_end):
                    m.next = "Kind"
            with m.State("Kind"):
                m.d.comb += answer.payload.eq(kind.bit_select(self.index, 1))
                with m.If(byte_end):
                    m.next = "Content"
            with m.State("Content"):
                self._content(m, status, identity, ended, byte_end, made_up)
            with m.State("Check"):
                m.d.comb += answer.payload.eq(crc.lowest)
                with m.If(byte_end):
                    m.d.sync += upper.eq(~upper)
                    with m.If(upper):
                        m.next = "Idle"
        with m.If(self.identify):
            m.d.sync += wants_identity.eq(1)
        with m.If(self.status):
            m.d.sync += wants_status.eq(1)
        with m.If(self.taken):
            m.d.sync += [ended.valid.eq(1), ended.spoiled.eq(self.spoiled), ended.tag.eq(self.tag)]
        return m

    def _content(
        self,
        m: Module,
        status: Signal,
        identity: Signal,
        ended: data.View,
        byte_end: Signal,
        made_up: Signal,
    ) -> None:
        """What the reply brings; on to its check sum after the last byte."""
        answer = self.answer
        with m.If(status):
            m.d.comb += answer.payload.eq(self.flags.bit_select(self.index, 1))
            with m.If(byte_end):
                m.next = "Check"
        with m.Elif(identity):
            m.d.comb += [
                self.read.eq(1),
                answer.valid.eq(self.header.valid),
                answer.payload.eq(self.header.payload.bit_select(self.index, 1)),
                self.header.ready.eq(byte_end),
            ]
            with m.If(byte_end & self.last):
                m.next = "Check"
        with m.Else():
            m.d.comb += [
                answer.valid.eq(self.results.valid),
                answer.payload.eq(self.results.payload.bit),
                self.results.ready.eq(answer.ready),
            ]
            with m.If(answer.ready & self.results.payload.last):
                m.d.sync += ended.valid.eq(0)
                m.next = "Check"
            if self._words is not None:
                self._fail(m, ended, made_up)

    def _fail(self, m: Module, ended: data.View, made_up: Signal) -> None:
        """The bits that are made up; without, an answer that has begun."""
        answer = self.answer
        with m.If(made_up != 0):
            m.d.comb += [answer.valid.eq(1), answer.payload.eq(0), self.results.ready.eq(0)]
            with m.If(answer.ready):
                m.d.sync += made_up.eq(made_up - 1)
                m.next = "Content"
                with m.If(made_up == 1):
                    m.d.sync += ended.valid.eq(0)
                    m.next = "Check"
        with m.Elif(self.failed & ~self.results.valid):
            m.d.sync += ended.valid.eq(0)
            m.next = "Idle"
