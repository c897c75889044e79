"""The walk of the 8-bit stem over the image."""

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.memory import ADDRESS_WIDTH
from bnnhw.gateware.program import Geometry

SIGNATURE = wiring.Signature(
    {
        "start": In(1),
        "geometry": In(Geometry),
        "base": In(unsigned(ADDRESS_WIDTH)),
        "received": In(9),
        "complete": In(1),
        "next": In(1),
        "taken": Out(1),
        "padded": Out(1),
        "last": Out(1),
        "group_end": Out(1),
        "position_end": Out(1),
        "row_end": Out(1),
        "busy": Out(1),
        "request": Out(1),
        "grant": In(1),
        "address": Out(unsigned(ADDRESS_WIDTH)),
    }
)


class StemWalker(wiring.Component):
    """For each pixel, for each four channels, for each tap: one word, a byte per input channel.

    A word of the image is one pixel. `word` and `padded` mark the cycle after a grant: a pixel's
    bytes are there, or the tap lies outside and counts as zero. `next` asks for a tap while high;
    `last` accompanies the last tap of four channels. A pixel starts when the image row below it
    has been received: `received` rows, or all with `complete`.
    """

    def __init__(self, parameters):
        self._parameters = parameters
        super().__init__(SIGNATURE)

    def elaborate(self, platform):
        m = Module()
        p, g = self._parameters, self.geometry
        row, column, quad = Signal(8), Signal(8), Signal(8)
        ky, kx = Signal(range(3)), Signal(range(3))
        corner, address = Signal(ADDRESS_WIDTH), Signal(ADDRESS_WIDTH)
        outside, allowed, quads_end = Signal(), Signal(), Signal()
        top, bottom, left, right, received = (Signal() for _ in range(5))
        # The counters change with a last tap only, and some cycles pass before the next is asked.
        m.d.sync += [
            top.eq(row == 0),
            bottom.eq(row == g.rows),
            left.eq(column == 0),
            right.eq(column == g.columns),
            quads_end.eq(quad == Cat(Const(3, 2), g.groups)),
            received.eq(self.busy & (self.complete | (self.received > row + 1))),
        ]
        m.d.comb += [
            outside.eq(
                (top & (ky == 0)) | (bottom & (ky == 2)) | (left & (kx == 0)) | (right & (kx == 2))
            ),
            allowed.eq(self.busy & self.next & received),
            self.request.eq(allowed & ~outside),
            self.address.eq(address),
            self.taken.eq(allowed & (outside | self.grant)),
            self.padded.eq(outside),
            self.last.eq((ky == 2) & (kx == 2)),
            self.group_end.eq(quad[:2] == 3),
            self.position_end.eq(quads_end),
            self.row_end.eq(quads_end & right),
        ]
        width = p.image_width
        with m.If(self.taken):
            m.d.sync += [kx.eq(kx + 1), address.eq(address + 1)]
            with m.If(kx == 2):
                m.d.sync += [kx.eq(0), ky.eq(ky + 1), address.eq(address + (width - 2))]
            with m.If(self.last):
                m.d.sync += [ky.eq(0), address.eq(corner), quad.eq(quad + 1)]
                with m.If(quads_end):
                    m.d.sync += [quad.eq(0), column.eq(column + 1)]
                    m.d.sync += [corner.eq(corner + 1), address.eq(corner + 1)]
                with m.If(self.row_end):
                    m.d.sync += [column.eq(0), row.eq(row + 1)]
                    m.d.sync += self.busy.eq(~bottom)
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), row.eq(0), received.eq(0)]
            m.d.sync += [corner.eq(self.base - (width + 1)), address.eq(self.base - (width + 1))]
        return m
