"""Frames on the serial port: requests in, answers out; docs/protocol.md has them byte by byte.

`Inbox` takes the host's requests apart, `Outbox` sends the device's replies; both run at once, so
that an image can arrive while the one before it is computed and answered.
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check, check_held
from bnnhw.gateware.wire import CRC_BYTES, CRC_START, SYNC, TAG_BITS, Flags, Request

_CRC_BITS = 8 * CRC_BYTES


class Checksum(wiring.Component):
    """CRC-16/IBM-3740 (polynomial 0x1021, from 0xFFFF), a byte a cycle.

    Of bytes and then their check sum, upper byte first, it is 0. Fed its own upper byte it moves
    up by a byte, so that `upper` is first the one and then the other byte of a check sum.

    Members
    -------
    start : In(1)     begin anew, whatever `valid`
    valid : In(1)     take a byte
    byte : In(8)      with valid
    upper : Out(8)    the upper byte of the check sum of all bytes before this cycle
    match : Out(1)    it is 0
    """

    start: In(1)
    valid: In(1)
    byte: In(8)
    upper: Out(8)
    match: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        crc = Signal(_CRC_BITS, init=CRC_START)
        mixed = self.byte ^ crc[8:]
        x = Signal(8)  # the byte's product with the polynomial in three shifts (0x1021)
        m.d.comb += [
            x.eq(mixed ^ mixed[4:]),
            self.upper.eq(crc[8:]),
            self.match.eq(crc == 0),
        ]
        with m.If(self.start):
            m.d.sync += crc.eq(CRC_START)
        with m.Elif(self.valid):
            m.d.sync += crc.eq((crc << 8) ^ (x << 12) ^ (x << 5) ^ x)
        return m


class Inbox(wiring.Component):
    """Takes requests apart: hands images on as they come, then says whether they were whole.

    A frame is dropped if its check sum is wrong or 2**timeout_bits cycles pass in it without a
    byte. But an image's rest is made up, and it is spoiled. Bytes between frames are ignored.

    Parameters
    ----------
    frame_bytes : int     bytes of an image
    timeout_bits : int

    Members
    -------
    received : In(stream of 8 bits)     from the serial port
    pixels : Out(stream of 8 bits)      images
    enable : In(1)                      while 0, images are dropped
    taken : Out(1)                      strobe: an image has ended
    spoiled : Out(1)                    it was not what the host sent; valid with taken
    tag : Out(4)                        the host's; valid with taken
    free : In(1)                        an image may end now
    identify, status : Out(1)           strobes: the host is to have this reply
    """

    received: In(stream.Signature(8))
    pixels: Out(stream.Signature(8))
    enable: In(1)
    taken: Out(1)
    spoiled: Out(1)
    tag: Out(TAG_BITS)
    free: In(1)
    identify: Out(1)
    status: Out(1)

    def __init__(self, *, frame_bytes: int, timeout_bits: int) -> None:
        if frame_bytes < 1:
            raise ValueError(f"frame_bytes={frame_bytes}: must be at least 1")
        self._frame_bytes = frame_bytes
        self._timeout_bits = timeout_bits
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = Checksum()
        remaining = Signal(range(self._frame_bytes))
        silence = Signal(self._timeout_bits + 1)
        late = silence[-1]  # the rest of the frame is made up
        infer, identify = Signal(), Signal()  # the frame's kind
        lower = Signal()  # the next byte is the lower one of the check sum
        owed = Signal()  # the host waits to hear that there is room
        received, byte = self.received, Signal()
        m.d.comb += [
            byte.eq(received.valid & received.ready),
            crc.byte.eq(received.payload),
            crc.valid.eq(byte),
            self.pixels.payload.eq(received.payload),
            self.spoiled.eq(late | ~crc.match),
            received.ready.eq(1),
        ]
        with m.If(~late):
            m.d.sync += silence.eq(Mux(received.valid, 0, silence + 1))

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += [remaining.eq(self._frame_bytes - 1), silence.eq(0), lower.eq(0)]
                with m.If(owed & self.pixels.ready):
                    m.d.sync += owed.eq(0)
                    m.d.comb += self.status.eq(1)
                with m.If(byte & (received.payload == SYNC)):
                    m.next = "Kind"
            with m.State("Kind"):
                m.d.sync += self.tag.eq(received.payload)
                with m.If(byte):
                    self._kind(m, crc, infer, identify)
                with m.Elif(late):
                    m.next = "Idle"
            with m.State("Image"):
                m.d.comb += [
                    self.pixels.valid.eq(received.valid | late),
                    received.ready.eq(self.pixels.ready),
                ]
                with m.If(self.pixels.valid & self.pixels.ready):
                    m.d.sync += remaining.eq(remaining - 1)
                    with m.If(remaining == 0):
                        m.d.sync += owed.eq(1)
                        m.next = "Check"
            with m.State("Check"):
                with m.If(byte):
                    m.d.sync += lower.eq(1)
                with m.If(late | (byte & lower)):
                    m.next = "End"
            with m.State("End"):
                m.d.comb += received.ready.eq(0)
                m.d.sync += silence[:-1].eq(0)
                self._end(m, infer, identify)
        return m

    def _kind(self, m: Module, crc: Checksum, infer: Signal, identify: Signal) -> None:
        """What follows the byte of a frame's kind."""
        kind = self.received.payload[TAG_BITS:]
        m.d.sync += [infer.eq(kind == Request.INFER), identify.eq(kind == Request.IDENTIFY)]
        with m.Switch(kind):
            with m.Case(Request.INFER):
                m.next = "Image"
                with m.If(~self.enable):
                    m.d.comb += self.status.eq(1)
                    m.next = "Idle"
            with m.Case(Request.IDENTIFY, Request.STATUS):
                m.next = "Check"
            with m.Case(SYNC >> TAG_BITS):  # perhaps this is the frame's first byte
                m.d.comb += crc.start.eq(1)
            with m.Default():
                m.next = "Idle"

    def _end(self, m: Module, infer: Signal, identify: Signal) -> None:
        """An image waits until the one before is answered; a request is passed on at once."""
        m.next = "Idle"
        with m.If(infer):
            m.d.comb += self.taken.eq(self.free)
            with m.If(~self.free):
                m.next = "End"
        with m.Elif(~self.spoiled):
            m.d.comb += [self.identify.eq(identify), self.status.eq(~identify)]


class Outbox(wiring.Component):
    """Sends replies: an answer once its image and its results are there, and what is asked.

    Parameters
    ----------
    n_results : int       32-bit words of an answer: the logits, the class and the cycles

    Members
    -------
    answer : Out(stream of 8 bits)           to the serial port
    results : In(stream of signed 32 bits)   n_results an image
    taken, spoiled, tag : In                 an image has ended; as Inbox has them
    free : Out(1)                            the next image may end
    identify, status : In(1)                 strobes, kept until their replies are sent
    flags : In(4)                            of the status
    read : Out(1)                            the flash's header is wanted
    header : In(stream of 8 bits)            it
    last : In(1)                             with its last byte
    """

    answer: Out(stream.Signature(8))
    results: In(stream.Signature(signed(32)))
    taken: In(1)
    spoiled: In(1)
    tag: In(TAG_BITS)
    free: Out(1)
    identify: In(1)
    status: In(1)
    flags: In(len(Flags))
    read: Out(1)
    header: In(stream.Signature(8))
    last: In(1)

    def __init__(self, *, n_results: int) -> None:
        if n_results < 1:
            raise ValueError(f"n_results={n_results}: must be at least 1")
        self._n_results = n_results
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = Checksum()
        wants_identity, wants_status = Signal(), Signal()
        ended = Signal(data.StructLayout({"valid": 1, "spoiled": 1, "tag": TAG_BITS}))
        spoiled, identity, status = Signal(), Signal(), Signal()  # the reply; else it is an answer
        kind = Cat(ended.tag, spoiled, identity, status, 1)  # Reply's numbers are made for this
        answer = self.answer
        sent = Signal()
        m.d.comb += [
            self.free.eq(~ended.valid),
            crc.byte.eq(answer.payload),
            crc.valid.eq(sent),
            sent.eq(answer.valid & answer.ready),
            answer.valid.eq(1),
        ]
        check_held(m, platform, "results", self.results)
        check(m, platform, ~(self.taken & ended.valid), "an image ends before the last's answer")
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [answer.valid.eq(0), crc.start.eq(1)]
                answers = ended.valid & self.results.valid
                m.d.sync += [
                    spoiled.eq(answers & ended.spoiled),
                    status.eq(~answers & wants_status),
                    identity.eq(~answers & ~wants_status),
                    wants_status.eq(wants_status & answers),
                    wants_identity.eq(wants_identity & (answers | wants_status)),
                ]
                with m.If(answers | wants_status | wants_identity):
                    m.next = "Sync"
            with m.State("Sync"):
                m.d.comb += [answer.payload.eq(SYNC), crc.start.eq(1)]
                with m.If(sent):
                    m.next = "Kind"
            with m.State("Kind"):
                m.d.comb += answer.payload.eq(kind)
                with m.If(sent):
                    m.next = "Content"
            with m.State("Content"):
                self._content(m, status, identity, ended, sent)
            for name, after in (("Upper", "Lower"), ("Lower", "Idle")):
                with m.State(name):
                    m.d.comb += answer.payload.eq(crc.upper)
                    with m.If(sent):
                        m.next = after
        with m.If(self.identify):
            m.d.sync += wants_identity.eq(1)
        with m.If(self.status):
            m.d.sync += wants_status.eq(1)
        with m.If(self.taken):
            m.d.sync += [ended.valid.eq(1), ended.spoiled.eq(self.spoiled), ended.tag.eq(self.tag)]
        return m

    def _content(
        self, m: Module, status: Signal, identity: Signal, ended: Any, sent: Signal
    ) -> None:
        """What the reply brings; on to its check sum after the last byte."""
        remaining = Signal(range(self._n_results), init=self._n_results - 1)
        byte = Signal(2)
        word = self.results.payload.as_unsigned()
        answer = self.answer
        with m.If(status):
            m.d.comb += answer.payload.eq(self.flags)
            with m.If(sent):
                m.next = "Upper"
        with m.Elif(identity):
            m.d.comb += [
                self.read.eq(1),
                answer.valid.eq(self.header.valid),
                answer.payload.eq(self.header.payload),
                self.header.ready.eq(answer.ready),
            ]
            with m.If(sent & self.last):
                m.next = "Upper"
        with m.Else():
            m.d.comb += [
                answer.valid.eq(self.results.valid),
                answer.payload.eq(word.word_select(byte, 8)),
                self.results.ready.eq((byte == 3) & answer.ready),
            ]
            with m.If(sent):
                m.d.sync += byte.eq(byte + 1)
            with m.If(self.results.valid & self.results.ready):
                m.d.sync += remaining.eq(remaining - 1)
                with m.If(remaining == 0):
                    m.d.sync += [remaining.eq(self._n_results - 1), ended.valid.eq(0)]
                    m.next = "Upper"
