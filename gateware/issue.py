"""Walks a binary convolution: which window, which weights, which channel in each cycle."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.array import Outside
from bnnhw.gateware.lane import Token
from bnnhw.gateware.parameters import GROUP, WINDOW_ROWS, EngineParameters
from bnnhw.gateware.program import Geometry

AROUND_CENTRE = 0b1101  # all rows, or columns, of a window but the upper left pixel's own


class ConvolutionIssue(wiring.Component):
    """For each block of pixels, for each `pe` output channels, for each fold: one array cycle.

    The residual stream needs a read and a write of its memory for each word of two tokens'
    channels (8-bit slots) or one's (16-bit). They keep out of each other's way because a
    token's cycles are padded to an even number where a word is one token's. Where the features lie
    in the same memory, two idle cycles follow each group of 16 channels if the folds leave no free
    cycle: in those the group's bits are written and one feature word is fetched.

    A channel stands for `pe` channels in what follows.

    `issue` marks a cycle in which the addresses are used; `first` and `token.valid` mark a
    channel's first and last fold. `retire` marks the end of a row of positions, of which the
    row of blocks above is needed no more. A row starts when `ahead`, the rows in the window
    buffer, is three. `busy` is high from the cycle after `start` to the last issue. A step that
    scales an operand has one fold, or, if it adds a shortcut too, four: a read more a channel.
    In a `pointwise` step, which has no window, channels are issued unless `hold`; `quarter` is the
    next one's place among four, `last_four` and `last_position` where these are.

    Members
    -------
    start : In(1)                       strobe: the step begins
    geometry : In(Geometry)             of the step; constant while it runs
    entry : In(entry)                   first of the step's in the weight buffer; from `start` on
    ahead : In(3)                       rows in the window buffer
    pointwise : In(1)                   the step has no window; constant while it runs
    hold : In(1)                        pointwise: no channel is issued in this cycle
    quarter : Out(2)                    pointwise: the channel's place among four
    last_four, last_position : Out(1)   these four are the position's last; it is the step's last
    busy : Out(1)                       from the cycle after `start` to the last issue
    retire : Out(1)                     strobe: a row of positions is done
    rows, columns : Out(3 x 2 bits), Out(3 x column)    of the window buffer, in cycle t
    weight_entry : Out(entry)           of the weight buffer, in t
    outside : Out(Outside)              of the window, in t
    first : Out(1)                      a channel's first fold, in t
    token : Out(Token)                  valid with a channel's last fold, in t
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        column = unsigned(exact_log2(parameters.window_depth // WINDOW_ROWS))
        super().__init__(
            {
                "start": In(1),
                "geometry": In(Geometry),
                "entry": In(unsigned(exact_log2(parameters.weight_depth))),
                "ahead": In(3),
                "pointwise": In(1),
                "hold": In(1),
                "quarter": Out(2),
                "last_four": Out(1),
                "last_position": Out(1),
                "busy": Out(1),
                "retire": Out(1),
                "rows": Out(data.ArrayLayout(unsigned(2), 3)),
                "columns": Out(data.ArrayLayout(column, 3)),
                "weight_entry": Out(unsigned(exact_log2(parameters.weight_depth))),
                "outside": Out(Outside),
                "first": Out(1),
                "token": Out(Token),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p, g = self._parameters, self.geometry
        each = GROUP // self._parameters.pe
        row, column = Signal(p.map_bits), Signal(p.map_bits)
        group, channel, fold = Signal(p.group_bits), Signal(range(each)), Signal(4)
        running, phase, pause = Signal(), Signal(), Signal(2)
        issue = Signal()
        m.d.comb += issue.eq(running & (pause == 0) & ~self.hold)
        m.d.sync += phase.eq(~phase)

        fold_end, group_end, position_end, row_end = (Signal() for _ in range(4))
        last_group, last_column, last_row = (Signal() for _ in range(3))
        # These change with a group's last channel, and are asked 16 cycles later at the earliest.
        m.d.sync += [
            last_group.eq(group == g.groups[: len(group)]),
            last_column.eq(column == g.columns[: len(column)]),
            last_row.eq(row == g.rows[: len(row)]),
        ]
        m.d.comb += [
            fold_end.eq(fold == g.folds),
            group_end.eq(fold_end & (channel == each - 1)),
            position_end.eq(group_end & last_group),
            row_end.eq(position_end & last_column),
            self.quarter.eq(channel),
            self.last_four.eq(last_group & channel[2:].all()),
            self.last_position.eq(last_column & last_row),
            self.retire.eq(issue & row_end),
            self.first.eq(fold == 0),
        ]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), row.eq(0)]
        starts = self.busy & ~running & ((self.ahead >= 3) | self.pointwise)
        with m.If(starts & (phase | (p.own_stream and p.halves == 2))):
            m.d.sync += running.eq(1)
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.If(issue):
            m.d.sync += fold.eq(fold + 1)
            with m.If(fold_end):
                m.d.sync += [fold.eq(0), channel.eq(channel + 1), pause.eq(self._pause(group_end))]
            with m.If(group_end):
                m.d.sync += group.eq(group + 1)
            with m.If(position_end):
                m.d.sync += [group.eq(0), column.eq(column + 1)]
            with m.If(row_end):
                # With a fourth row in the buffer the next one's may follow at once.
                m.d.sync += [column.eq(0), row.eq(row + 1), running.eq(self.ahead[2] & ~last_row)]
                m.d.sync += self.busy.eq(~last_row)
        self._addresses(m, issue, fold_end, position_end, row_end, row[:2])
        self._borders(m, row, column)

        word = Cat(channel, group)[exact_log2(p.step_channels(p.slot_width) // p.pe) :]
        m.d.comb += [
            self.token.valid.eq(issue & fold_end),
            self.token.shortcut.eq(
                g.add
                & (word >= g.shortcut_first[: len(word)])
                & (word < g.shortcut_end[: len(word) + 1])
            ),
            self.token.odd.eq(channel[0]),
            self.token.group_end.eq(group_end),
            self.token.position_end.eq(position_end),
            self.token.row_end.eq(row_end),
        ]
        return m

    def _pause(self, group_end: Signal) -> Value:
        """Idle cycles after a channel."""
        folds = self.geometry.folds
        shared = not self._parameters.own_stream
        if self._parameters.halves == 2:
            return Mux(group_end & (folds == 0), 2, 0) if shared else Const(0)
        odd = ~folds[0]
        return Mux(group_end & (folds <= 1), 2, 0) + odd if shared else odd

    def _addresses(
        self,
        m: Module,
        issue: Signal,
        fold_end: Signal,
        position_end: Signal,
        row_end: Signal,
        slot: Value,
    ) -> None:
        """Window columns advance by fold, back to the block's first for each channel."""
        step, advance = self.geometry.folds + 1, 1
        if self._parameters.spatial:  # one word a block, however many folds
            advance = ~self.geometry.spatial
            step = Mux(advance, step, 1)
        base = Signal.like(self.columns[0])
        entry = Signal.like(self.weight_entry)
        first = self.entry if self._parameters.resident else Const(0)
        current = Signal.like(base)
        after = Signal.like(base)
        m.d.comb += after.eq(base + step)
        with m.If(issue):
            m.d.sync += [entry.eq(entry + 1), current.eq(current + advance)]
            with m.If(fold_end):
                m.d.sync += current.eq(base)
            with m.If(position_end):
                m.d.sync += [entry.eq(first), current.eq(after), base.eq(after)]
            with m.If(row_end):
                m.d.sync += [current.eq(0), base.eq(0)]
        if self._parameters.resident:
            with m.If(self.start):
                m.d.sync += entry.eq(first)
        m.d.comb += self.weight_entry.eq(entry)
        for offset in range(3):
            m.d.comb += self.rows[offset].eq(slot + offset)
        m.d.comb += [
            self.columns[0].eq(current),
            self.columns[1].eq(current + step),
            self.columns[2].eq(self.columns[1] + step),
        ]

    def _borders(self, m: Module, row: Signal, column: Signal) -> None:
        g = self.geometry
        top, bottom = row == 0, row == g.rows[: len(row)]
        right = column == g.columns[: len(column)]
        odd_row, lowest = bottom & g.odd_rows, bottom
        if self._parameters.passes:
            top, lowest = top & ~g.above, bottom & ~g.below
        first, last = column == 0, right
        if self._parameters.strips:
            first, last = first & ~g.more_left, last & ~g.more_right
        m.d.comb += [
            self.outside.rows.eq(Mux(g.mask, Cat(top, 0, odd_row, lowest), 0)),
            self.outside.columns.eq(Mux(g.mask, Cat(first, 0, right & g.odd_columns, last), 0)),
        ]
        if self._parameters.passes:
            with m.If(g.centre):
                m.d.comb += [
                    self.outside.rows.eq(AROUND_CENTRE),
                    self.outside.columns.eq(AROUND_CENTRE),
                    self.outside.centre.eq(1),
                ]
        m.d.comb += [
            self.token.edge_row.eq(odd_row),
            self.token.edge_column.eq(right & g.odd_columns),
        ]
