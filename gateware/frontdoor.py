"""Bytes from outside into the memory: the boot image, then the pixels of frames."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.memory import NIBBLES, WriteRequest
from bnnhw.gateware.parameters import LANES, WORD_WIDTH, EngineParameters
from bnnhw.gateware.thermometer import Thermometer


class ByteWriter(wiring.Component):
    """Until `run`: `load` fills words from address 0, eight bytes each, low byte first.
    Then `pixels` fills the image from `image_base`, a frame at a time: a word per pixel, a byte
    per channel, or with `levels` a map of bits, of each channel those of its byte's thermometer in
    whole groups of 16 (stored as bnnhw.compiler.layout says; lanes outside an odd map are left
    alone).

    `received` counts the rows of the frame that are in memory, `complete` says all are; both
    stay until `consume`, and no pixel is taken while `complete`.

    Members
    -------
    run : In(1)                         the boot image is in; stays high
    load : In(stream of 8 bits)         boot image; taken until `run`
    pixels : In(stream of 8 bits)       frames, row by row; taken with `run`, unless `complete`
    consume : In(1)                     strobe: the frame is needed no more
    received : Out(row)                 rows of the frame in memory
    complete : Out(1)                   all rows are
    memory : Out(WriteRequest)          held until its grant
    """

    def __init__(self, parameters: EngineParameters, *, image_base: int) -> None:
        self._parameters, self._image_base = parameters, image_base
        super().__init__(
            {
                "run": In(1),
                "load": In(stream.Signature(8)),
                "pixels": In(stream.Signature(8)),
                "consume": In(1),
                "received": Out(parameters.map_bits),
                "complete": Out(1),
                "memory": Out(WriteRequest()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        address, byte = self.memory.address, Signal(3)
        column, row_end = Signal(range(p.image_width)), Signal()
        held, full = Signal(8), Signal()  # one byte, so that the request waits for nothing
        stored, final = Signal(init=1), Signal()  # with this grant a byte, a word or pixel, is
        accepted, done = Signal(), Signal()
        run = Signal()  # and the boot image's last byte is written
        wanted, granted = full, self.memory.grant
        if not p.own_stream:  # the shared memory's requests must be early, its grants come late
            wanted, granted = Signal(), Signal()
            m.d.sync += granted.eq(wanted & self.memory.grant)
            with m.If(wanted):
                m.d.sync += wanted.eq(~self.memory.grant)
            with m.Else():
                m.d.sync += wanted.eq((full & ~done) | accepted)
        source = Mux(run, self.pixels.payload, self.load.payload)
        m.d.comb += [
            done.eq(granted & stored),
            self.load.ready.eq(~self.run & ~full),
            self.pixels.ready.eq(run & ~full & ~self.complete),
            accepted.eq(
                (self.load.valid & self.load.ready) | (self.pixels.valid & self.pixels.ready)
            ),
            self.memory.request.eq(wanted),
            self.memory.data.eq(held.replicate(WORD_WIDTH // 8)),
            self.memory.mask.eq(Cat((byte == i).replicate(2) for i in range(NIBBLES // 2))),
            final.eq(stored & (byte == Mux(run, p.image_channels - 1, 7))),
            row_end.eq(column == p.image_width - 1),
        ]
        with m.If(done):
            m.d.sync += [full.eq(0), byte.eq(byte + 1)]
        with m.If(accepted):
            m.d.sync += [full.eq(1), held.eq(source)]
        with m.If(granted & final):
            m.d.sync += byte.eq(0)
            with m.If(run):
                m.d.sync += column.eq(column + 1)
                with m.If(row_end):
                    m.d.sync += [column.eq(0), self.received.eq(self.received + 1)]
                    m.d.sync += self.complete.eq(self.received == p.image_height - 1)
        advance, step = final, 1
        if p.levels:
            advance, step = self._bits(m, held, stored, final, column, row_end, granted, run)
        with m.If(granted & advance):
            m.d.sync += address.eq(address + step)
        started = Signal()
        m.d.sync += [run.eq(self.run & ~full & ~granted | run), started.eq(run)]
        with m.If(self.consume):
            m.d.sync += [self.complete.eq(0), self.received.eq(0)]
        with m.If(self.consume | (run & ~started)):
            m.d.sync += [address.eq(self._image_base), byte.eq(0), column.eq(0)]
        return m

    def _bits(
        self,
        m: Module,
        held: Signal,
        stored: Signal,
        final: Signal,
        column: Signal,
        row_end: Signal,
        granted: Signal,
        run: Signal,
    ) -> tuple[Value, Value]:
        """A byte's bits in place of it, a group a word; returns when and how far to go on."""
        p = self._parameters
        group = Signal(range(p.byte_groups))
        lane = Cat(column[0], self.received[0])
        m.submodules.thermometer = thermometer = Thermometer(levels=p.levels, limits=p.limits)
        m.d.comb += [thermometer.byte.eq(held), thermometer.group.eq(group)]
        with m.If(run):
            m.d.comb += [
                self.memory.data.eq(thermometer.bits.replicate(LANES)),
                self.memory.mask.eq(Cat((lane == i).replicate(4) for i in range(LANES))),
                stored.eq(group == p.byte_groups - 1),
            ]
            with m.If(granted):
                m.d.sync += group.eq(Mux(stored, 0, group + 1))
        # The next pixel is in the same block, in the row's first block again, or in the next.
        words = p.image_channels * p.byte_groups
        row_words = -(-p.image_width // 2) * words
        last = run & final
        block_again, row_again = last & ~row_end & ~lane[0], last & row_end & ~lane[1]
        step = Mux(block_again, 1 - words, Mux(row_again, 1 - row_words, 1))
        return run | final, step
