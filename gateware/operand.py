"""What a step scales instead of an accumulator: a wide number from memory, shifted."""

from dataclasses import replace

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.delay import Delay
from gateware.lane import Token, saturate
from gateware.memory import ADDRESS_WIDTH, FetchRequest
from gateware.parameters import LANES
from gateware.shortcut import ShortcutReader


class OperandReader(wiring.Component):
    """t = saturate(operand + shift_in) for the token in cycle c, four lanes, in c + 3.

    One word a token, in memory order from `base`; the request comes with the token and cannot
    wait. `late` is the token in c + 2, for the lanes, which want operands a cycle after tokens.
    The channel's `shift_in` and `negative` slope are read from `entry`, given in c + 1, and
    are there in c + 2; `slope` is `negative` in c + 3.
    Golden: bnnhw.golden_parts.activate.
    """

    def __init__(self, parameters, *, entry):
        self._parameters = parameters
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "step": In(entry),
                "token": In(Token),
                "late": Out(Token),
                "entry": Out(entry),
                "shift_in": In(signed(16)),
                "negative": In(signed(16)),
                "operand": Out(data.ArrayLayout(signed(16), LANES)),
                "slope": Out(signed(16)),
                "memory": Out(FetchRequest()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        parameters = replace(self._parameters, averages=False)
        m.submodules.reader = reader = ShortcutReader(parameters)
        m.submodules.wait = wait = Delay(Token, 2)
        m.d.comb += [
            wait.i.eq(self.token),
            self.late.eq(wait.o),
            reader.load.eq(self.load),
            reader.base.eq(self.base),
            reader.token.eq(self.token),
            reader.token.shortcut.eq(1),
            self.memory.request.eq(reader.memory.request),
            self.memory.address.eq(reader.memory.address),
            reader.memory.grant.eq(self.memory.grant),
            reader.memory.data.eq(self.memory.data),
        ]
        after = Signal.like(self.entry)
        with m.If(self.load):
            m.d.sync += after.eq(0)
        with m.If(self.token.valid):
            m.d.sync += [self.entry.eq(after), after.eq(after + self.step)]
            with m.If(self.token.position_end):
                m.d.sync += after.eq(0)
        for lane in range(LANES):
            m.d.sync += self.operand[lane].eq(saturate(reader.residual[lane] + self.shift_in, 16))
        m.d.sync += self.slope.eq(self.negative)
        return m
