"""Reads the residual stream that is added to a convolution's results."""

from amaranth import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.lane import Token
from bnnhw.gateware.memory import ADDRESS_WIDTH, FetchRequest
from bnnhw.gateware.parameters import GROUP, LANES, EngineParameters
from bnnhw.gateware.program import PERIOD_WIDTH
from bnnhw.gateware.writers import BlockAddress


class ShortcutReader(wiring.Component):
    """Residuals of the token in cycle t, four lanes, in t + 2; zero without a shortcut.

    With passes tokens with a shortcut come two cycles apart at least and residuals stay until
    t + 3. Words are read in memory order from `base`, one for each memory word of channels that
    has a shortcut. The request comes with the token and cannot wait. With `in_place` they are read
    as a step with single pixels writes its map: the pixel of the position, in lane 0.
    With `mean` lane 0 is the mean of the block as a wide number, past an odd map's edge the edge
    again; the words are those of the position's first `period` + 1 channels, over and over.
    `period` is taken with `base`.
    Golden: bnnhw.golden.operations.averaged.

    Members
    -------
    load : In(1)                        strobe: `base` and `period` are taken
    base : In(15)                       word address of the first residual; with `load`
    period : In(8)                      channels of a mean, less one; with `load`
    token : In(Token)                   in cycle t
    in_place, mean : In(1)              of the step; constant while it runs
    residual : Out(4 x stream)          registered; in t + 2
    memory : Out(FetchRequest)          granted in the cycle of its request
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        residual = data.ArrayLayout(signed(parameters.stream_width), LANES)
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "period": In(PERIOD_WIDTH),
                "token": In(Token),
                "in_place": In(1),
                "mean": In(1),
                "residual": Out(residual),
                "memory": Out(FetchRequest()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        slots = data.ArrayLayout(signed(p.slot_width), LANES)
        token = Signal(Token)
        m.d.sync += token.eq(self.token)
        opens = ~self.token.odd if p.word_channels == 2 else 1
        m.d.comb += self.memory.request.eq(self.token.valid & self.token.shortcut & opens)
        lane = self._walk(m)
        now = Signal(slots)
        if p.word_channels == 2:
            arrived, odd = Signal(), Signal(slots)
            m.d.sync += arrived.eq(self.memory.request)
            with m.If(arrived):
                m.d.sync += odd.eq(self.memory.data[32:])
            m.d.comb += now.eq(Mux(token.odd, odd, self.memory.data[:32]))
        else:
            m.d.comb += now.eq(self.memory.data)
        taken = Signal.like(self.residual)
        m.d.comb += self.residual.eq(taken)
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

    def _rows(self, m: Module, token: Signal, now: Signal, taken: Signal) -> None:
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
            m.d.sync += lane.eq(place.lane)
        else:
            with m.If(self.memory.request):
                m.d.sync += self.memory.address.eq(self.memory.address + 1)
            with m.If(load):
                m.d.sync += self.memory.address.eq(base)
        return lane

    def _again(self, m: Module) -> tuple[Signal, Signal]:
        """After the last channel of the shortcut, and for each position, the block's first word's
        address is loaded; every load is a cycle late. Returns the strobe and the address."""
        token = self.token
        first = Signal.like(self.base)
        channel, period = Signal(PERIOD_WIDTH), Signal(PERIOD_WIDTH)
        again = Signal()
        m.d.sync += again.eq(0)
        with m.If(self.mean & self.memory.request):
            m.d.sync += channel.eq(channel + 1)
            with m.If(channel == period):
                m.d.sync += [channel.eq(0), again.eq(1)]
        with m.If(self.mean & token.valid & token.position_end):
            groups = exact_log2(GROUP)
            m.d.sync += first[groups:].eq(first[groups:] + period[groups:] + 1)
            m.d.sync += [channel.eq(0), again.eq(1)]
        with m.If(self.load):
            m.d.sync += [first.eq(self.base), period.eq(self.period)]
            m.d.sync += [channel.eq(0), again.eq(1)]
        return again, first
