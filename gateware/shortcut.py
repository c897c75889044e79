"""Reads the residual stream that is added to a convolution's results."""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.lane import Token
from bnnhw.gateware.memory import FetchRequest
from bnnhw.gateware.parameters import ADDRESS_WIDTH, LANES, EngineParameters
from bnnhw.gateware.program import PERIOD_WIDTH, Walk
from bnnhw.gateware.writers import BlockAddress, further


class ShortcutReader(wiring.Component):
    """Residuals of the token in cycle t, of its channels four lanes each, in t + 3; zero without a
    shortcut.

    With passes tokens with a shortcut come two cycles apart at least and residuals stay until
    t + 4. Words are read in memory order from `base`, one for each memory word of channels that
    has a shortcut. The request comes with the token and cannot wait. With `in_place` they are read
    as a step with single pixels writes its map: the pixel of the position, in lane 0.
    With `mean` lane 0 is the mean of the block as a wide number, past an odd map's edge the edge
    again; the words are the position's first `period` + 1, over and over. `period` is taken with
    `base`. With tiles the walk's groups are left out after a position. In an engine with
    means but no passes residuals are given as wide numbers, too.
    Golden: bnnhw.golden.operations.averaged.

    Members
    -------
    load : In(1)                        strobe: `base` and `period` are taken
    base : In(15)                       word address of the first residual; with `load`
    period : In(8)                      words of a mean, less one; with `load`
    walk : In(Walk)                     0 where whole blocks are added to single pixels; constant
    token : In(Token)                   in cycle t
    in_place, mean : In(1)              of the step; constant while it runs
    residual : Out(pe x 4 x added)      registered; in t + 3
    memory : Out(FetchRequest)          granted in the cycle of its request
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        self._at_once = parameters.own_stream and parameters.halves == 2
        lanes = data.ArrayLayout(signed(parameters.added_width), LANES)
        residual = data.ArrayLayout(lanes, parameters.pe)
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "period": In(PERIOD_WIDTH),
                "walk": In(Walk),
                "token": In(Token),
                "in_place": In(1),
                "mean": In(1),
                "residual": Out(residual),
                "memory": Out(FetchRequest(parameters.word_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        half = p.pe * LANES * p.slot_width
        slots = data.ArrayLayout(data.ArrayLayout(signed(p.slot_width), LANES), p.pe)
        asked, token = Signal(Token), Signal(Token)
        m.d.sync += [asked.eq(self.token), token.eq(asked)]
        opens = ~self.token.odd if p.halves == 2 else 1
        m.d.comb += self.memory.request.eq(self.token.valid & self.token.shortcut & opens)
        lane = self._walk(m)
        now = Signal(slots)
        if p.halves == 2:
            wanted, arrived, odd = Signal(), Signal(), Signal(slots)
            m.d.sync += [wanted.eq(self.memory.request), arrived.eq(wanted)]
            with m.If(arrived):
                m.d.sync += odd.eq(self.memory.data[half:])
            m.d.comb += now.eq(Mux(token.odd, odd, self.memory.data[:half]))
        else:
            m.d.comb += now.eq(self.memory.data)
        up = p.guard if p.averages and not p.passes else 0
        lanes = data.ArrayLayout(signed(p.stream_width + p.averages), LANES)
        taken = Signal(data.ArrayLayout(lanes, p.pe))
        stays = Signal()
        if p.passes:
            m.d.sync += stays.eq(token.valid & token.shortcut)
        with m.If(~stays):
            for channel in range(p.pe):
                for index in range(LANES):
                    m.d.sync += taken[channel][index].eq(now[channel][index])
                if p.in_place:
                    m.d.sync += taken[channel][0].eq(Array(now[channel])[lane])
                if p.averages:
                    self._rows(m, token, now[channel], taken[channel])
            with m.If(~(token.valid & token.shortcut)):
                m.d.sync += taken.eq(0)
        for channel in range(p.pe):
            residual, numbers = self.residual[channel], taken[channel]
            for index in range(LANES):
                m.d.comb += residual[index].eq(numbers[index] << up)
            if p.averages:
                with m.If(self.mean):
                    m.d.comb += residual[0].eq(((numbers[0] + numbers[1]) << p.guard) >> 2)
        return m

    def _rows(self, m: Module, token: Any, now: Any, taken: Any) -> None:
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

    def _walk(self, m: Module) -> Signal:
        """Addresses; returns the lane that lane 0 takes, in place, of the word that arrives."""
        p = self._parameters
        lane = Signal(range(LANES))
        load, base, jump, following = self.load, self.base, Const(0), self.base
        if self._parameters.averages:
            load, base, jump, following = self._again(m)
        if self._parameters.in_place:
            m.submodules.place = place = BlockAddress(unit=p.group_words)
            m.d.comb += [
                place.load.eq(load),
                place.base.eq(base),
                place.single.eq(self.in_place),
                place.walk.eq(self.walk),
                place.advance.eq(self.memory.request),
                place.position_end.eq(self.token.position_end),
                place.row_end.eq(self.token.row_end),
                self.memory.address.eq(place.address),
            ]
            chosen = Signal.like(lane)
            m.d.sync += [chosen.eq(place.lane), lane.eq(chosen)]
        else:
            moves: Any = self.memory.request
            after = self.memory.address + 1
            if p.tiles:
                end = self.token.valid & self.token.position_end
                beyond = Mux(end, self.walk.position.as_unsigned(), 0)
                after = further(self.memory.address, self.memory.request, beyond, p.group_words)
                moves |= end
            with m.If(moves):
                m.d.sync += self.memory.address.eq(after)
            with m.If(load):
                m.d.sync += self.memory.address.eq(base)
            with m.If(jump):
                m.d.sync += self.memory.address.eq(following)
        return lane

    def _again(self, m: Module) -> tuple[Value, Value, Value, Value]:
        """After the last word of the shortcut, and for each position, the block's first word's
        address is loaded; every load is a cycle late, but that for a position where the next one
        may follow at once. Returns strobe and address of the late ones, and of that."""
        token, jump = self.token, Signal()
        first = Signal.like(self.base)
        p = self._parameters
        bits = min(PERIOD_WIDTH, p.group_bits + exact_log2(p.group_words))
        word, period = Signal(bits), Signal(bits)
        again = Signal()
        m.d.sync += again.eq(0)
        with m.If(self.mean & self.memory.request):
            m.d.sync += word.eq(word + 1)
            with m.If(word == period):
                m.d.sync += [word.eq(0), again.eq(1)]
        groups = exact_log2(p.group_words)
        upper = Signal.like(first[groups:])
        m.d.comb += upper.eq(first[groups:] + period[groups:] + 1)
        following = Cat(first[:groups], upper)
        with m.If(self.mean & token.valid & token.position_end):
            m.d.sync += [first.eq(following), word.eq(0), again.eq(not self._at_once)]
            m.d.comb += jump.eq(self._at_once)
        with m.If(self.load):
            m.d.sync += [first.eq(self.base), period.eq(self.period)]
            m.d.sync += [word.eq(0), again.eq(1)]
        return again, first, jump, following
