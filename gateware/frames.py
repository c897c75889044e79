"""The host's protocol on the serial port: a picture in, its logits, class and cycles out.

Host to device: COMMAND, then exactly `frame_bytes` bytes of the image, height, width, channel.
The host then waits for the answer:
    1 byte      GOOD or SPOILED
    4 bytes     logit of class 0, little-endian signed; then those of the other classes
    1 byte      class
    4 bytes     cycles, little-endian
Any other byte in place of COMMAND is ignored. No lost or extra byte can wedge the device: if
2**timeout_bits cycles pass without a byte in a frame, the rest of it is made up, and if a byte
comes between the end of a frame and its answer, one was too many. Both answers have the same
length and start with SPOILED: their numbers mean nothing, and the host sends the frame again.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

COMMAND = 0x49
GOOD = 0x52
SPOILED = 0x45


class Frames(wiring.Component):
    """Speaks the protocol above between a serial port and an engine.

    Parameters
    ----------
    frame_bytes : int     bytes of an image
    n_logits : int        logits of an answer
    timeout_bits : int    2**timeout_bits cycles of silence spoil a frame

    Members
    -------
    received, answer : streams of 8 bits from and to the serial port
    pixels : Out(stream of 8 bits)             the image
    logits : In(stream of signed 32 bits)
    label : In(8), cycles : In(32)             valid from the last logit to the next image
    enable : In(1)                             while 0, received bytes are dropped
    """

    received: In(stream.Signature(8))
    answer: Out(stream.Signature(8))
    pixels: Out(stream.Signature(8))
    logits: In(stream.Signature(signed(32)))
    label: In(8)
    cycles: In(32)
    enable: In(1)

    def __init__(self, *, frame_bytes, n_logits, timeout_bits):
        for name, value in {"frame_bytes": frame_bytes, "n_logits": n_logits}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self._frame_bytes = frame_bytes
        self._n_logits = n_logits
        self._timeout_bits = timeout_bits
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        remaining = Signal(range(max(self._frame_bytes, self._n_logits)))
        silence = Signal(self._timeout_bits)
        spoiled = Signal()
        byte = Signal(2)
        m.d.comb += self.pixels.payload.eq(self.received.payload)

        with m.FSM():
            with m.State("Command"):
                m.d.comb += self.received.ready.eq(1)
                m.d.sync += [remaining.eq(self._frame_bytes - 1), spoiled.eq(0), silence.eq(0)]
                start = self.received.valid & (self.received.payload == COMMAND)
                with m.If(start & self.enable):
                    m.next = "Image"
            with m.State("Image"):
                m.d.comb += [
                    self.pixels.valid.eq(self.received.valid | spoiled),
                    self.received.ready.eq(self.pixels.ready | spoiled),
                ]
                m.d.sync += silence.eq(Mux(self.received.valid, 0, silence + 1))
                with m.If(silence.all()):
                    m.d.sync += spoiled.eq(1)
                with m.If(self.pixels.valid & self.pixels.ready):
                    m.d.sync += remaining.eq(remaining - 1)
                    with m.If(remaining == 0):
                        m.next = "Mark"
            with m.State("Mark"):
                m.d.comb += [
                    self.received.ready.eq(1),
                    self.answer.valid.eq(self.logits.valid),
                    self.answer.payload.eq(Mux(spoiled, SPOILED, GOOD)),
                ]
                m.d.sync += [remaining.eq(self._n_logits - 1), byte.eq(0)]
                with m.If(self.received.valid):
                    m.d.sync += spoiled.eq(1)
                with m.If(self.answer.valid & self.answer.ready):
                    m.next = "Logits"
            self._answer(m, remaining, byte)
        return m

    def _answer(self, m, remaining, byte):
        """The states that send the numbers."""
        last = Signal()  # the fourth byte is going
        m.d.comb += last.eq((byte == 3) & self.answer.ready)
        with m.State("Logits"):
            m.d.comb += [
                self.answer.valid.eq(self.logits.valid),
                self.answer.payload.eq(self.logits.payload.as_unsigned().word_select(byte, 8)),
                self.logits.ready.eq(last),
            ]
            with m.If(self.logits.valid & self.answer.ready):
                m.d.sync += byte.eq(byte + 1)
            with m.If(self.logits.valid & last):
                m.d.sync += remaining.eq(remaining - 1)
                with m.If(remaining == 0):
                    m.next = "Class"
        with m.State("Class"):
            m.d.comb += [self.answer.valid.eq(1), self.answer.payload.eq(self.label)]
            with m.If(self.answer.ready):
                m.next = "Cycles"
        with m.State("Cycles"):
            m.d.comb += self.answer.valid.eq(1)
            m.d.comb += self.answer.payload.eq(self.cycles.word_select(byte, 8))
            with m.If(self.answer.ready):
                m.d.sync += byte.eq(byte + 1)
            with m.If(last):
                m.next = "Command"
