"""Reads the residual stream that is added to a convolution's results."""

from amaranth import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.lane import Token
from gateware.memory import ADDRESS_WIDTH, FetchRequest
from gateware.parameters import LANES
from gateware.writers import BlockAddress


class ShortcutReader(wiring.Component):
    """Residuals of the token in cycle t, four lanes, in t + 2; zero without a shortcut.

    Words are read in memory order from `base`, one for each memory word of channels that has a
    shortcut. The request comes with the token and cannot wait. With `in_place` they are read as
    a step with single pixels writes its map: the pixel of the position, in lane 0.
    """

    def __init__(self, parameters):
        self._parameters = parameters
        residual = data.ArrayLayout(signed(parameters.stream_width), LANES)
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "token": In(Token),
                "in_place": In(1),
                "residual": Out(residual),
                "memory": Out(FetchRequest()),
            }
        )

    def elaborate(self, platform):
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
        with m.If(token.shortcut):
            for index in range(LANES):
                m.d.sync += self.residual[index].eq(now[index])
            m.d.sync += self.residual[0].eq(Array(now)[lane] if p.passes else now[0])
        with m.Else():
            m.d.sync += self.residual.eq(0)
        return m

    def _walk(self, m):
        """Addresses; returns the lane that lane 0 takes of the word that arrives."""
        lane = Signal(range(LANES))
        if self._parameters.passes:
            m.submodules.place = place = BlockAddress()
            m.d.comb += [
                place.load.eq(self.load),
                place.base.eq(self.base),
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
            with m.If(self.load):
                m.d.sync += self.memory.address.eq(self.base)
        return lane
