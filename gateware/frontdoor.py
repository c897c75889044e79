"""Bytes from outside into the memory: the boot image, then the pixels of frames."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.memory import NIBBLES, WORD_WIDTH, WriteRequest


class ByteWriter(wiring.Component):
    """Until `run`: `load` fills words from address 0, eight bytes each, low byte first.
    Then `pixels` fills a word per pixel from `image_base`, a byte per channel, a frame at a time.

    `received` counts the rows of the frame that are in memory, `complete` says all are; both
    stay until `consume`, and no pixel is taken while `complete`.
    """

    def __init__(self, parameters, *, image_base):
        self._parameters, self._image_base = parameters, image_base
        super().__init__(
            {
                "run": In(1),
                "load": In(stream.Signature(8)),
                "pixels": In(stream.Signature(8)),
                "consume": In(1),
                "received": Out(9),
                "complete": Out(1),
                "memory": Out(WriteRequest()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self._parameters
        address, byte = Signal.like(self.memory.address), Signal(3)
        column = Signal(8)
        held, full = Signal(8), Signal()  # one byte, so that the request waits for nothing
        source = Mux(self.run, self.pixels.payload, self.load.payload)
        m.d.comb += [
            self.load.ready.eq(~self.run & ~full),
            self.pixels.ready.eq(self.run & ~full & ~self.complete),
            self.memory.request.eq(full),
            self.memory.address.eq(address),
            self.memory.data.eq(held.replicate(WORD_WIDTH // 8)),
            self.memory.mask.eq(Cat((byte == i).replicate(2) for i in range(NIBBLES // 2))),
        ]
        with m.If(self.memory.grant):
            m.d.sync += full.eq(0)
        loaded = self.load.valid & self.load.ready
        with m.If(loaded | (self.pixels.valid & self.pixels.ready)):
            m.d.sync += [full.eq(1), held.eq(source)]
        final = Signal()
        m.d.comb += final.eq(byte == Mux(self.run, p.image_channels - 1, 7))
        with m.If(self.memory.grant):
            m.d.sync += byte.eq(byte + 1)
            with m.If(final):
                m.d.sync += [byte.eq(0), address.eq(address + 1)]
                with m.If(self.run):
                    m.d.sync += column.eq(column + 1)
                    with m.If(column == p.image_width - 1):
                        m.d.sync += [column.eq(0), self.received.eq(self.received + 1)]
                        m.d.sync += self.complete.eq(self.received == p.image_height - 1)
        started = Signal()
        m.d.sync += started.eq(self.run)
        with m.If(self.consume):
            m.d.sync += [self.complete.eq(0), self.received.eq(0)]
        with m.If(self.consume | (self.run & ~started)):
            m.d.sync += [address.eq(self._image_base), byte.eq(0), column.eq(0)]
        return m
