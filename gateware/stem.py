"""The walk of the 8-bit stem over the image."""

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.parameters import ADDRESS_WIDTH, GROUP, EngineParameters
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

    A word of the image is one pixel. `taken` marks a tap: a pixel's bytes come in the second cycle
    after, or, where `padded`, it lies outside. `next` asks for a tap while high;
    `last` accompanies the last tap of four channels. A pixel starts when the image row below it
    has been received: `received` rows, or all with `complete`.

    Members
    -------
    start : In(1)                       strobe: the step begins
    geometry : In(Geometry)             of the step; constant while it runs
    base : In(15)                       word address of the image; with `start`
    received, complete : In(9), In(1)   rows of the image in memory; all are
    next : In(1)                        another tap is wanted
    taken : Out(1)                      the tap is walked; its data come two cycles later
    padded : Out(1)                     it lies outside; with `taken`
    last : Out(1)                       the last tap of four channels; with `taken`
    group_end, position_end, row_end : Out(1)    these four channels end it; with `last`
    busy : Out(1)                       from the cycle after `start` to the last tap
    request, address : Out(1), Out(15)  of the memory; combinational from `next`
    grant : In(1)                       of the memory, in the cycle of `request`
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        super().__init__(SIGNATURE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p, g = self._parameters, self.geometry
        some = exact_log2(GROUP // p.macs)
        row, column = Signal(p.map_bits), Signal(p.map_bits)
        quad = Signal(some + p.group_bits)
        ky, kx = Signal(range(3)), Signal(range(3))
        corner, address = Signal(ADDRESS_WIDTH), Signal(ADDRESS_WIDTH)
        outside, allowed, quads_end = Signal(), Signal(), Signal()
        top, bottom, left, right, received = (Signal() for _ in range(5))
        # The counters change with a last tap only, and some cycles pass before the next is asked.
        m.d.sync += [
            top.eq(row == 0),
            bottom.eq(row == g.rows[: p.map_bits]),
            left.eq(column == 0),
            right.eq(column == g.columns[: p.map_bits]),
            quads_end.eq(quad == Cat(Const((1 << some) - 1, some), g.groups[: p.group_bits])),
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
            self.group_end.eq(quad[:some].all() if some else 1),
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
