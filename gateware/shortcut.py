"""Reads the residual stream that is added to a convolution's results."""

from amaranth import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.lane import Token
from bnnhw.gateware.memory import ADDRESS_WIDTH, FetchRequest
from bnnhw.gateware.parameters import GROUP, LANES
from bnnhw.gateware.program import PERIOD_WIDTH, TILE_WIDTH
from bnnhw.gateware.writers import BlockAddress, words_of


class ShortcutReader(wiring.Component):
    """Residuals of the token in cycle t, four lanes, in t + 3; zero without a shortcut.

    With passes tokens with a shortcut come two cycles apart at least and residuals stay until
    t + 4. Words are read in memory order from `base`, one for each memory word of channels that
    has a shortcut. The request comes with the token and cannot wait. With `in_place` they are read
    as a step with single pixels writes its map: the pixel of the position, in lane 0.
    With `mean` lane 0 is the mean of the block as a wide number, past an odd map's edge the edge
    again; the words are the position's first `period` + 1, over and over. `period` is taken with
    `base`. With tiles `skip` groups of 16 channels are left out after a position. In an engine with
    means but no passes residuals are given as wide numbers, too.
    Golden: bnnhw.golden.operations.averaged.

    Members
    -------
    load : In(1)                        strobe: `base` and `period` are taken
    base : In(15)                       word address of the first residual; with `load`
    period : In(8)                      words of a mean, less one; with `load`
    skip : In(6)                        groups left out after a position; constant, with tiles
    token : In(Token)                   in cycle t
    in_place, mean : In(1)              of the step; constant while it runs
    residual : Out(4 x added)           registered; in t + 3
    memory : Out(FetchRequest)          granted in the cycle of its request
    """

    def __init__(self, parameters):
        self._parameters = parameters
        residual = data.ArrayLayout(signed(parameters.added_width), LANES)
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "period": In(PERIOD_WIDTH),
                "skip": In(TILE_WIDTH),
                "token": In(Token),
                "in_place": In(1),
                "mean": In(1),
                "residual": Out(residual),
                "memory": Out(FetchRequest()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self._parameters
        slots = data.ArrayLayout(signed(p.slot_width), LANES)
        asked, token = Signal(Token), Signal(Token)
        m.d.sync += [asked.eq(self.token), token.eq(asked)]
        opens = ~self.token.odd if p.word_channels == 2 else 1
        m.d.comb += self.memory.request.eq(self.token.valid & self.token.shortcut & opens)
        lane = self._walk(m)
        now = Signal(slots)
        if p.word_channels == 2:
            wanted, arrived, odd = Signal(), Signal(), Signal(slots)
            m.d.sync += [wanted.eq(self.memory.request), arrived.eq(wanted)]
            with m.If(arrived):
                m.d.sync += odd.eq(self.memory.data[32:])
            m.d.comb += now.eq(Mux(token.odd, odd, self.memory.data[:32]))
        else:
            m.d.comb += now.eq(self.memory.data)
        up = p.guard if p.averages and not p.passes else 0
        taken = Signal(data.ArrayLayout(signed(p.stream_width + p.averages), LANES))
        for index in range(LANES):
            m.d.comb += self.residual[index].eq(taken[index] << up)
        stays = Signal()
        if p.passes:
            m.d.sync += stays.eq(token.valid & token.shortcut)
        with m.If(~stays):
            for index in range(LANES):
                m.d.sync += taken[index].eq(now[index])
            if p.in_place:
                m.d.sync += taken[0].eq(Array(now)[lane])
            if p.averages:
                self._rows(m, token, now, taken)
            with m.If(~(token.valid & token.shortcut)):
                m.d.sync += taken.eq(0)
        if p.averages:
            with m.If(self.mean):
                m.d.comb += self.residual[0].eq(((taken[0] + taken[1]) << p.guard) >> 2)
        return m

    def _rows(self, m, token, now, taken):
        """In place of the upper lanes the sums of the block's rows."""
        p = self._parameters
        stream = [now[lane][p.slot_fraction :][: p.residual_width] for lane in range(LANES)]
        values = [number.as_signed() for number in stream]
        right_edge, lower_edge = token.edge_column & p.odd_maps, token.edge_row & p.odd_maps
        upper, lower = (
            left + Mux(right_edge, left, right) for left, right in (values[:2], values[2:])
        )
        with m.If(self.mean):
            m.d.sync += [taken[0].eq(upper), taken[1].eq(Mux(lower_edge, upper, lower))]

    def _walk(self, m):
        """Addresses; returns the lane that lane 0 takes, in place, of the word that arrives."""
        lane = Signal(range(LANES))
        load, base = self.load, self.base
        if self._parameters.averages:
            load, base = self._again(m)
        if self._parameters.in_place:
            m.submodules.place = place = BlockAddress()
            m.d.comb += [
                place.load.eq(load),
                place.base.eq(base),
                place.single.eq(self.in_place),
                place.advance.eq(self.memory.request),
                place.position_end.eq(self.token.position_end),
                place.row_end.eq(self.token.row_end),
                self.memory.address.eq(place.address),
            ]
            chosen = Signal.like(lane)
            m.d.sync += [chosen.eq(place.lane), lane.eq(chosen)]
        else:
            step, moves = 1, self.memory.request
            if self._parameters.tiles:
                end = self.token.valid & self.token.position_end
                skipped = words_of(self.skip, self._parameters)
                step, moves = self.memory.request | Mux(end, skipped, 0), moves | end
            with m.If(moves):
                m.d.sync += self.memory.address.eq(self.memory.address + step)
            with m.If(load):
                m.d.sync += self.memory.address.eq(base)
        return lane

    def _again(self, m):
        """After the last word of the shortcut, and for each position, the block's first word's
        address is loaded; every load is a cycle late. Returns the strobe and the address."""
        token = self.token
        first = Signal.like(self.base)
        word, period = Signal(PERIOD_WIDTH), Signal(PERIOD_WIDTH)
        again = Signal()
        m.d.sync += again.eq(0)
        with m.If(self.mean & self.memory.request):
            m.d.sync += word.eq(word + 1)
            with m.If(word == period):
                m.d.sync += [word.eq(0), again.eq(1)]
        with m.If(self.mean & token.valid & token.position_end):
            groups = exact_log2(GROUP // self._parameters.word_channels)
            m.d.sync += first[groups:].eq(first[groups:] + period[groups:] + 1)
            m.d.sync += [word.eq(0), again.eq(1)]
        with m.If(self.load):
            m.d.sync += [first.eq(self.base), period.eq(self.period)]
            m.d.sync += [word.eq(0), again.eq(1)]
        return again, first
