"""A stand-in for the engine: sums the pixels, adds a word of its boot image, answers."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.memory import MemorySignature
from bnnhw.gateware.results import ResultBit


class FakeEngine(wiring.Component):
    """Result k of a frame is (sum of pixels) + k * (low 16 bits of word 0 of the memory).

    It has an engine's ports. So the class and the cycles are just two results more.
    """

    memory: Out(MemorySignature())
    load: In(stream.Signature(8))
    run: In(1)
    pixels: In(stream.Signature(8))
    results: Out(stream.Signature(ResultBit))
    ready: Out(1)
    busy: Out(1)
    step_done: Out(1)
    step: Out(8)

    def __init__(self, *, frame_bytes, classes):
        self.frame_bytes = frame_bytes
        self.n_results = classes + 2
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(32))
        word = Signal(64)
        count = Signal(18)
        seen = Signal(range(self.frame_bytes + 1))
        given = Signal(range(self.n_results + 1))
        place = Signal(5)  # bit of a result
        full = Signal()

        m.d.comb += [
            self.ready.eq(self.run),
            self.load.ready.eq(~self.run & ~full),
            self.memory.write.eq(full),
            self.memory.write_mask.eq(0xFFFF),
            self.memory.write_data.eq(word),
            self.memory.address.eq((count - 1)[3:] & ~self.run.replicate(15)),
        ]
        m.d.sync += full.eq(0)
        with m.If(self.load.valid & self.load.ready):
            m.d.sync += [word.eq(word[8:] | (self.load.payload << 56)), count.eq(count + 1)]
            m.d.sync += full.eq(count[:3] == 7)

        # The next image may come while this one's results wait.
        done, whole, kept = Signal(), seen == self.frame_bytes, Signal(signed(32))
        m.d.comb += [
            self.pixels.ready.eq(self.run & ~whole),
            self.busy.eq((seen != 0) | done),
            self.results.valid.eq(done),
            self.results.payload.bit.eq(kept.bit_select(place, 1)),
            self.results.payload.last.eq((given == self.n_results - 1) & place.all()),
            self.step_done.eq(done & (given == 0) & (place == 0)),
        ]
        with m.If(self.pixels.valid & self.pixels.ready):
            m.d.sync += [seen.eq(seen + 1), total.eq(total + self.pixels.payload)]
        with m.If(self.results.valid & self.results.ready):
            m.d.sync += place.eq(place + 1)
        with m.If(self.results.valid & self.results.ready & place.all()):
            m.d.sync += [given.eq(given + 1), kept.eq(kept + self.memory.read_data[:16])]
            with m.If(given == self.n_results - 1):
                m.d.sync += [done.eq(0), given.eq(0)]
        with m.If(whole & ~done):
            m.d.sync += [done.eq(1), kept.eq(total), seen.eq(0), total.eq(0)]
        return m
