"""Fills the window buffer with a feature map, row of blocks by row of blocks."""

from amaranth import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.buffers import ROWS
from bnnhw.gateware.parameters import GROUP, LANES, EngineParameters
from bnnhw.gateware.program import Geometry


class WindowLoader(wiring.Component):
    """Copies feature words in memory order into the window buffer, with a border of one block.

    Blocks run over rows -1 .. rows and columns -1 .. columns of the map, of which a row -1 or
    `rows` is inside where the map goes on `above` or `below`. Those inside are
    fetched: `request` stays up until `grant`, and the word is written a cycle later. Those
    outside, and lanes outside an odd map, are written as zeros with minus-one padding and left
    alone with zero padding, where the array masks them. Factors are a word a block.

    Of a strip of the image, which is a convolution of fewer columns, those on either side are
    fetched as well; `row_end` marks the last word of a row, after which the next is elsewhere.
    With `waits` a row is fetched when both of its pixel rows are among those `received`.

    `ahead` counts rows in the buffer: up with each row filled, down with `retire`; at most four.

    Members
    -------
    start : In(1)                       strobe: the step begins
    geometry : In(Geometry)             of the step; constant while it runs
    retire : In(1)                      strobe: a row of the buffer is needed no more
    waits : In(1)                       the map is the image, which is still being received
    received : In(9)                    rows of the image in memory
    row_end : Out(1)                    the word on request is its row's last
    ahead : Out(3)                      rows in the buffer
    request : Out(1)                    a word is wanted; up until `grant`
    grant : In(1)                       the word is read; its data come in the next cycle
    write : Out(1)                      those data go to the window buffer in this cycle
    write_row, write_column : Out(2), Out(column)    where to; with `write`
    write_lanes : Out(4)                lanes inside the map, the others count as 0; with `write`
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        column = unsigned(exact_log2(parameters.window_depth // ROWS))
        super().__init__(
            {
                "start": In(1),
                "geometry": In(Geometry),
                "retire": In(1),
                "waits": In(1),
                "received": In(9),
                "row_end": Out(1),
                "ahead": Out(3),
                "request": Out(1),
                "grant": In(1),
                "write": Out(1),
                "write_row": Out(2),
                "write_column": Out(column),
                "write_lanes": Out(LANES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        busy, known, filled = Signal(), Signal(), Signal()
        row, column, fold = Signal(9), Signal(9), Signal(4)  # row and column count the border
        place = Signal.like(self.write_column)
        inside, fold_end, row_end, last_row, room, step = (Signal() for _ in range(6))
        # A word takes two cycles: in the first it becomes known where it lies.
        within_rows, within_columns = Signal(), Signal()
        p = self._parameters
        folds = Mux(g.spatial, 0, g.folds) if p.spatial else g.folds
        left, right = (g.more_left, g.more_right) if p.gaps else (0, 0)
        above, below = (g.above, g.below) if p.passes else (0, 0)
        m.d.comb += [
            within_rows.eq(((row != 0) | above) & ((row != g.rows + 2) | below)),
            within_columns.eq((column != 0) & (column != g.columns + 2)),
        ]
        m.d.sync += [
            known.eq(busy & ~step),
            inside.eq(within_rows & (within_columns | left | right)),
            fold_end.eq(fold == folds),
            row_end.eq((fold == folds) & (column == g.columns + 2)),
            last_row.eq(row == g.rows + 2),
            room.eq((self.ahead < ROWS) & ~filled),
        ]
        if p.levels:
            with m.If(self.waits & (self.received[1:] < row)):
                m.d.sync += room.eq(0)
        m.d.comb += [
            self.row_end.eq(row_end),
            self.request.eq(known & room & inside),
            step.eq(known & room & (~inside | self.grant)),
        ]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), row.eq(0), self.ahead.eq(0)]
        with m.If(step):
            m.d.sync += [fold.eq(fold + 1), place.eq(place + 1)]
            with m.If(fold_end):
                m.d.sync += [fold.eq(0), column.eq(column + 1)]
            with m.If(row_end):
                m.d.sync += [column.eq(0), place.eq(0), row.eq(row + 1), room.eq(0)]
                m.d.sync += busy.eq(~last_row)
        # A row counts once its last word is written, a cycle after the grant.
        m.d.sync += filled.eq(step & row_end)
        with m.If(~self.start):
            m.d.sync += self.ahead.eq(self.ahead + filled - self.retire)
        m.d.sync += [
            self.write.eq(step & (inside | p.minus_one)),
            self.write_row.eq(row),
            self.write_column.eq(place),
        ]
        bottom = (row == g.rows + 1) & g.odd_rows
        edge = (column == g.columns + 1) & g.odd_columns
        gone = Cat(bottom & (lane >> 1) | edge & (lane & 1) for lane in range(LANES))
        counts = within_columns | ((column == 0) & left) | ((column != 0) & right)
        m.d.sync += self.write_lanes.eq(Mux(within_rows & counts, ~gone, 0))
        return m


def mask_lanes(word: Value, lanes: Value) -> Value:
    """`word`, four lanes of 16 channels, with the lanes of which `lanes` is 0 zeroed."""
    return Cat(word.word_select(i, GROUP) & lanes[i].replicate(GROUP) for i in range(LANES))
