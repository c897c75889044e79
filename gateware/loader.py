"""Fills the window buffer with a feature map, row of blocks by row of blocks."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.delay import Delay
from bnnhw.gateware.parameters import GROUP, LANES, WINDOW_ROWS, EngineParameters
from bnnhw.gateware.program import Geometry, Kind


class WindowLoader(wiring.Component):
    """Copies feature words in memory order into the window buffer, with a border of one block.

    Blocks run over rows -1 .. rows and columns -1 .. columns of the map, of which a row -1 or
    `rows` is inside where the map goes on `above` or `below`. Those inside are
    fetched: `request` stays up until `grant`, and the word is written two cycles later, or three
    where the residual stream has a memory of its own: then it is handed on by a register. Those
    outside, and lanes outside an odd map, are written as zeros with minus-one padding and left
    alone with zero padding, where the array masks them. Factors are a word a block. Outside an
    image whose padding is a byte of its own are that byte's bits.

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
    received : In(row)                  rows of the image in memory
    row_end : Out(1)                    the word on offer is fetched and its row's last
    ahead : Out(3)                      rows in the buffer
    request : Out(1)                    a word is wanted; up until `grant`
    grant : In(1)                       it is read; its data come so many cycles later
    write : Out(1)                      those data go to the window buffer in this cycle
    write_row, write_column : Out(2), Out(column)    where to; with `write`
    write_lanes : Out(4)                lanes inside the map, the others count as 0; with `write`
    write_pad : Out(16)                 or as these bits; with `write`, if there are pad_groups
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        self._late = parameters.own_stream
        column = unsigned(exact_log2(parameters.window_depth // WINDOW_ROWS))
        members: dict[str, Any] = {"write_pad": Out(GROUP)} if parameters.pad_groups else {}
        super().__init__(
            members
            | {
                "start": In(1),
                "geometry": In(Geometry),
                "retire": In(1),
                "waits": In(1),
                "received": In(parameters.map_bits),
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
        p = self._parameters
        # The words are found out one ahead of that on offer: the grant comes late in its cycle.
        word = Signal(
            data.StructLayout(
                dict(
                    inside=1, row_end=1, row=2, column=self.write_column.shape(),
                    lanes=LANES, **(dict(fold=4) if p.pad_groups else {}),
                )
            )
        )  # fmt: skip
        offer, offered, more = Signal.like(word), Signal(), Signal()
        room, step, stepped, handed, filled = (Signal() for _ in range(5))
        row = self._words(m, word, more, ~offered | step)
        m.d.sync += room.eq((self.ahead < WINDOW_ROWS) & ~stepped & ~handed & ~filled)
        if p.levels:
            with m.If(self.waits & (self.received[1:] < row) & ~offer.row_end):
                m.d.sync += room.eq(0)
        m.d.comb += [
            self.row_end.eq(offer.row_end & offer.inside),
            self.request.eq(room & offer.inside),
            step.eq(offered & room & (~offer.inside | self.grant)),
        ]
        with m.If(more & (~offered | step)):
            m.d.sync += [offer.eq(word), offered.eq(1)]
        with m.Elif(step):
            m.d.sync += [offered.eq(0), offer.inside.eq(0)]
        with m.If(step & offer.row_end):
            m.d.sync += room.eq(0)
        # A row counts once its last word is written, two cycles after the grant, or three.
        m.d.sync += [stepped.eq(step & offer.row_end), filled.eq(handed if self._late else stepped)]
        if self._late:
            m.d.sync += handed.eq(stepped)
        with m.If(self.start):
            m.d.sync += self.ahead.eq(0)
        with m.Else():
            m.d.sync += self.ahead.eq(self.ahead + filled - self.retire)
        image = self.geometry.kind == Kind.STEM
        outer = image | p.minus_one if p.pad_groups else p.minus_one
        m.submodules.later = later = Delay(word.shape(), 2 + self._late)
        m.submodules.writes = writes = Delay(1, 2 + self._late)
        m.d.comb += [
            writes.i.eq(step & (offer.inside | outer)),
            later.i.eq(offer),
            self.write.eq(writes.o),
            self.write_row.eq(later.o.row),
            self.write_column.eq(later.o.column),
            self.write_lanes.eq(later.o.lanes),
        ]
        if p.pad_groups:
            with m.If(image):
                m.d.comb += self.write_pad.eq(Array(p.pad_groups)[later.o.fold])
        return m

    def _words(self, m: Module, word: Any, more: Signal, taken: Value) -> Signal:
        """Counts through the words of a step, of which there are `more` while it is not done; one
        is `taken`. Returns the row, counted with the border."""
        p, g = self._parameters, self.geometry
        row, column = Signal(p.map_bits), Signal(p.map_bits)  # counted with the border
        fold = Signal(4)
        rows, columns = (size[: p.map_bits] for size in (g.rows, g.columns))
        place = Signal.like(self.write_column)
        folds = Mux(g.spatial, 0, g.folds) if p.spatial else g.folds
        left, right = (g.more_left, g.more_right) if p.strips else (0, 0)
        above, below = (g.above, g.below) if p.passes else (0, 0)
        fold_end, last_column = fold == folds, column == (columns + 2)[: p.map_bits]
        last_row = row == (rows + 2)[: p.map_bits]
        within_rows = ((row != 0) | above) & (~last_row | below)
        within_columns = (column != 0) & ~last_column
        bottom = (row == (rows + 1)[: p.map_bits]) & g.odd_rows
        edge = (column == (columns + 1)[: p.map_bits]) & g.odd_columns
        gone = Cat(bottom & (lane >> 1) | edge & (lane & 1) for lane in range(LANES))
        counts = within_columns | ((column == 0) & left) | (last_column & right)
        m.d.comb += [
            word.inside.eq(within_rows & (within_columns | left | right)),
            word.row_end.eq(fold_end & last_column),
            word.row.eq(row),
            word.column.eq(place),
            word.lanes.eq(Mux(within_rows & counts, ~gone, 0)),
        ]
        if p.pad_groups:
            m.d.comb += word.fold.eq(fold)
        with m.If(more & taken):
            m.d.sync += [fold.eq(fold + 1), place.eq(place + 1)]
            with m.If(fold_end):
                m.d.sync += [fold.eq(0), column.eq(column + 1)]
            with m.If(word.row_end):
                m.d.sync += [column.eq(0), place.eq(0), row.eq(row + 1), more.eq(~last_row)]
        with m.If(self.start):
            m.d.sync += [more.eq(1), row.eq(0)]
        return row


def mask_lanes(word: Value, lanes: Value) -> Value:
    """`word`, four lanes of 16 channels, with the lanes of which `lanes` is 0 zeroed."""
    return Cat(word.word_select(i, GROUP) & lanes[i].replicate(GROUP) for i in range(LANES))


def written(parameters: EngineParameters, word: Value, loader: WindowLoader) -> Value:
    """Returns what is written of a fetched `word`."""
    if parameters.pad_groups:
        inside, pad = loader.write_lanes, loader.write_pad
        return Cat(Mux(inside[i], word.word_select(i, GROUP), pad) for i in range(LANES))
    return mask_lanes(word, loader.write_lanes) if parameters.minus_one else word
