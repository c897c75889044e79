"""The host's protocol on the serial port: an image in, its logits, class and cycles out.

Host to device: COMMAND, then exactly `frame_bytes` bytes of the image, height, width, channel.
The host then waits for the answer:
    1 byte      GOOD or SPOILED
    4 bytes     logit of class 0, little-endian signed; then those of the other classes
    4 bytes     class, then 4 bytes cycles, little-endian
Any other byte in place of COMMAND is ignored. No lost or extra byte can wedge the device: if
2**timeout_bits cycles pass without a byte in a frame, the rest of it is made up, and if a byte
comes between the end of a frame and its answer, one was too many. Both answers have the same
length and start with SPOILED: their numbers mean nothing, and the host sends the frame again.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check, check_held

COMMAND = 0x49
GOOD = 0x52
SPOILED = 0x45


class Frames(wiring.Component):
    """Speaks the protocol above between a serial port and an engine.

    Parameters
    ----------
    frame_bytes : int     bytes of an image
    n_results : int       32-bit words of an answer: the logits, the class and the cycles
    timeout_bits : int    2**timeout_bits cycles of silence spoil a frame

    Members
    -------
    received : In(stream of 8 bits)           from the serial port
    answer : Out(stream of 8 bits)            to the serial port; combinational from `results`
    pixels : Out(stream of 8 bits)            the image; combinational from `received`
    results : In(stream of signed 32 bits)    n_results a frame, after its last pixel; each stays
                                              until it is taken
    enable : In(1)                            while 0, received bytes are dropped
    """

    received: In(stream.Signature(8))
    answer: Out(stream.Signature(8))
    pixels: Out(stream.Signature(8))
    results: In(stream.Signature(signed(32)))
    enable: In(1)

    def __init__(self, *, frame_bytes: int, n_results: int, timeout_bits: int) -> None:
        for name, value in {"frame_bytes": frame_bytes, "n_results": n_results}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self._frame_bytes = frame_bytes
        self._n_results = n_results
        self._timeout_bits = timeout_bits
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        remaining = Signal(range(max(self._frame_bytes, self._n_results)))
        silence = Signal(self._timeout_bits)
        spoiled = Signal()
        m.d.comb += self.pixels.payload.eq(self.received.payload)
        check_held(m, platform, "results", self.results)

        with m.FSM():
            with m.State("Command"):
                check(m, platform, ~self.results.valid, "a result without a frame")
                m.d.comb += self.received.ready.eq(1)
                m.d.sync += [remaining.eq(self._frame_bytes - 1), spoiled.eq(0), silence.eq(0)]
                start = self.received.valid & (self.received.payload == COMMAND)
                with m.If(start & self.enable):
                    m.next = "Image"
            with m.State("Image"):
                check(m, platform, ~self.results.valid, "a result before the frame's last pixel")
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
                    self.answer.valid.eq(self.results.valid),
                    self.answer.payload.eq(Mux(spoiled, SPOILED, GOOD)),
                ]
                m.d.sync += remaining.eq(self._n_results - 1)
                with m.If(self.received.valid):
                    m.d.sync += spoiled.eq(1)
                with m.If(self.answer.valid & self.answer.ready):
                    m.next = "Results"
            with m.State("Results"):
                self._send(m, remaining)
        return m

    def _send(self, m: Module, remaining: Signal) -> None:
        """Offer the results byte by byte, low byte first; return to Command after the last."""
        byte = Signal(2)
        word = self.results.payload.as_unsigned()
        m.d.comb += [
            self.answer.valid.eq(self.results.valid),
            self.answer.payload.eq(word.word_select(byte, 8)),
            self.results.ready.eq((byte == 3) & self.answer.ready),
        ]
        with m.If(self.results.valid & self.answer.ready):
            m.d.sync += byte.eq(byte + 1)
        with m.If(self.results.valid & self.results.ready):
            m.d.sync += remaining.eq(remaining - 1)
            with m.If(remaining == 0):
                m.next = "Command"
