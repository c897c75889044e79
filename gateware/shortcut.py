"""Reads the residual stream that is added to a convolution's results."""

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.lane import Token
from gateware.memory import ADDRESS_WIDTH, FetchRequest
from gateware.parameters import LANES


class ShortcutReader(wiring.Component):
    """Residuals of the token in cycle t, four lanes, in t + 2; zero without a shortcut.

    Words are read in memory order from `base`, one for each memory word of channels that has a
    shortcut. The request comes with the token and cannot wait.
    """

    def __init__(self, parameters):
        self._parameters = parameters
        residual = data.ArrayLayout(signed(parameters.stream_width), LANES)
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "token": In(Token),
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
        with m.If(self.memory.request):
            m.d.sync += self.memory.address.eq(self.memory.address + 1)
        with m.If(self.load):
            m.d.sync += self.memory.address.eq(self.base)

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
            for lane in range(LANES):
                m.d.sync += self.residual[lane].eq(now[lane])
        with m.Else():
            m.d.sync += self.residual.eq(0)
        return m
