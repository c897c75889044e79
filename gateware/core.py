"""An engine with its memories inside, for a design of one's own: bytes in, words out.

Everything is inferred: no primitive of a family, so that any tool and any simulator takes it.
"""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from bnnhw.gateware.checks import check_held
from bnnhw.gateware.parameters import WORD_WIDTH
from bnnhw.gateware.ram import NIBBLE, Ram
from bnnhw.gateware.results import WORD_BITS, ResultBit


class Words(wiring.Component):
    """Gathers bits to words, lowest bit first. A word is offered in the cycle after its last bit.

    Members
    -------
    i : In(stream of ResultBit)           a frame's bits; none is taken while a word waits
    o : Out(stream of signed 32 bits)     registered
    last : Out(1)                         it is the frame's last; with o
    """

    i: In(stream.Signature(ResultBit))
    o: Out(stream.Signature(signed(WORD_BITS)))
    last: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        place, bits = Signal(range(WORD_BITS)), self.o.payload.as_unsigned()
        check_held(m, platform, "o", self.o)
        m.d.comb += self.i.ready.eq(~self.o.valid)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.o.payload.eq(Cat(bits[1:], self.i.payload.bit)),
                self.last.eq(self.i.payload.last),
                place.eq(place + 1),
                self.o.valid.eq(place.all()),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m


class Core(wiring.Component):
    """An engine and its memories.

    Parameters
    ----------
    engine : component      with memory, load, run, ready, pixels, results, busy; perhaps stream
    image : sequence of int    64-bit words of program and weights
    words : int             64-bit words of the large memory
    stream_words, apart : int    words of the residual stream's own memory, if the engine has one,
                            and its bits that are written apart
    inside : bool           whether the large memory has the image when the device starts; else it
                            comes by `load` after each reset. SPRAM starts empty.

    Members
    -------
    load : In(stream of 8 bits)         the image's bytes, lowest of a word first; only if it is not
                                        inside
    ready : Out(1)                      frames are taken; stays high until reset
    pixels : In(stream of 8 bits)       frames, a byte for each row, column, channel, the last
                                        fastest; a byte in several cycles
    results : Out(stream of signed 32 bits)    of each frame, in order: its logits, class 0 first,
                                        its class, its cycles
    last : Out(1)                       with a frame's cycles
    busy : Out(1)                       a whole frame is in, and its last logit not out
    """

    def __init__(
        self, engine: Any, image: Sequence[int], *, words: int, stream_words: int = 0,
        apart: int = NIBBLE, inside: bool = True,
    ) -> None:  # fmt: skip
        self._engine, self._inside = engine, inside
        self._load_bytes = len(image) * WORD_WIDTH // 8
        self._memory = Ram(words, init=image if inside else (), exclusive=True)
        self._stream_memory = None
        if stream_words:
            width = len(engine.stream.write_data)
            self._stream_memory = Ram(stream_words, width, apart, exclusive=True)
        super().__init__(
            ({} if inside else {"load": In(stream.Signature(8))})
            | {
                "ready": Out(1),
                "pixels": In(stream.Signature(8)),
                "results": Out(stream.Signature(signed(WORD_BITS))),
                "last": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self._engine
        m.submodules.memory = memory = self._memory
        m.submodules.words = words = Words()
        connect(m, engine.memory, memory.port)
        if self._stream_memory is not None:
            m.submodules.stream_memory = own = self._stream_memory
            connect(m, engine.stream, own.port)
        connect(m, flipped(self.pixels), engine.pixels)
        connect(m, engine.results, words.i)
        connect(m, words.o, flipped(self.results))
        m.d.comb += [
            self.ready.eq(engine.ready),
            self.busy.eq(engine.busy),
            self.last.eq(words.last),
        ]
        if self._inside:
            m.d.sync += engine.run.eq(1)
        else:
            self._take_image(m, engine)
        return m

    def _take_image(self, m: Module, engine: Any) -> None:
        """Hand the image on; when the engine is ready for a byte more, the last is in memory."""
        left, whole = Signal(range(self._load_bytes), init=self._load_bytes - 1), Signal()
        m.d.comb += [
            engine.load.payload.eq(self.load.payload),
            engine.load.valid.eq(self.load.valid & ~whole),
            self.load.ready.eq(engine.load.ready & ~whole),
        ]
        with m.If(self.load.valid & self.load.ready):
            m.d.sync += [left.eq(left - 1), whole.eq(left == 0)]
        with m.If(whole & engine.load.ready):
            m.d.sync += engine.run.eq(1)
