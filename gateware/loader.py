"""Fills the window buffer with a feature map, row of blocks by row of blocks."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gateware.buffers import ROWS
from gateware.parameters import GROUP, LANES
from gateware.program import Geometry


class WindowLoader(wiring.Component):
    """Copies feature words in memory order into the window buffer, with a border of one block.

    Blocks run over rows -1 .. rows and columns -1 .. columns of the map. Those inside are
    fetched: `request` stays up until `grant`, and the word is written a cycle later. Those
    outside, and lanes outside an odd map, are written as zeros with minus-one padding and left
    alone with zero padding, where the array masks them.

    `ahead` counts rows in the buffer: up with each row filled, down with `retire`; at most four.
    """

    def __init__(self, parameters):
        self._parameters = parameters
        column = unsigned(exact_log2(parameters.window_depth // ROWS))
        super().__init__(
            {
                "start": In(1),
                "geometry": In(Geometry),
                "retire": In(1),
                "ahead": Out(3),
                "request": Out(1),
                "grant": In(1),
                "write": Out(1),
                "write_row": Out(2),
                "write_column": Out(column),
                "write_lanes": Out(LANES),
            }
        )

    def elaborate(self, platform):
        m = Module()
        g = self.geometry
        busy = Signal()
        row, column, fold = Signal(9), Signal(9), Signal(4)  # row and column count the border
        place = Signal.like(self.write_column)
        first_row, last_row, first_column, last_column = (Signal() for _ in range(4))
        inside, step, filled, room = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            first_row.eq(row == 0),
            last_row.eq(row == g.rows + 2),
            first_column.eq(column == 0),
            last_column.eq(column == g.columns + 2),
            inside.eq(~(first_row | last_row | first_column | last_column)),
            room.eq(busy & (self.ahead + filled < ROWS)),
            self.request.eq(room & inside),
            step.eq(Mux(inside, self.grant, room)),
        ]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), row.eq(0), self.ahead.eq(0)]
        with m.If(step):
            m.d.sync += [fold.eq(fold + 1), place.eq(place + 1)]
            with m.If(fold == g.folds):
                m.d.sync += [fold.eq(0), column.eq(column + 1)]
                with m.If(last_column):
                    m.d.sync += [column.eq(0), place.eq(0), row.eq(row + 1)]
                    m.d.sync += busy.eq(~last_row)
        row_end = step & (fold == g.folds) & last_column
        # A row counts once its last word is written, a cycle after the grant.
        m.d.sync += filled.eq(row_end)
        with m.If(~self.start):
            m.d.sync += self.ahead.eq(self.ahead + filled - self.retire)
        m.d.sync += [
            self.write.eq(step & (inside | self._parameters.minus_one)),
            self.write_row.eq(row),
            self.write_column.eq(place),
        ]
        bottom = (row == g.rows + 1) & g.odd_rows
        right = (column == g.columns + 1) & g.odd_columns
        gone = Cat(bottom & (lane >> 1) | right & (lane & 1) for lane in range(LANES))
        m.d.sync += self.write_lanes.eq(Mux(inside, ~gone, 0))
        return m


def mask_lanes(word, lanes):
    """`word`, four lanes of 16 channels, with the lanes of which `lanes` is 0 zeroed."""
    return Cat(word.word_select(i, GROUP) & lanes[i].replicate(GROUP) for i in range(LANES))
