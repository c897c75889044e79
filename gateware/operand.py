"""What a step scales instead of an accumulator: a wide number from memory, shifted; its factors."""

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.array import WINDOW
from gateware.delay import Delay
from gateware.lane import Token, saturate
from gateware.memory import ADDRESS_WIDTH, FetchRequest
from gateware.parameters import FACTOR_WIDTH, LANES


class OperandReader(wiring.Component):
    """t = saturate(operand + shift_in) for the token in cycle c, four lanes, in c + 2 and c + 3.

    One word a token, in memory order from `base`; the request comes with the token and cannot
    wait. Tokens come two cycles apart at least. `late` is the token in c + 2, for the lanes,
    which want operands a cycle after tokens. The channel's `shift_in` and `negative` slope are
    read from `entry`, given in c, and are there in c + 1; `slope` is `negative` with the operand.
    Golden: bnnhw.golden_parts.activate.
    """

    def __init__(self, *, entry):
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
        m.submodules.wait = wait = Delay(Token, 2)
        arrived = Signal()
        m.d.comb += [
            wait.i.eq(self.token),
            self.late.eq(wait.o),
            self.memory.request.eq(self.token.valid),
        ]
        m.d.sync += arrived.eq(self.memory.request)
        with m.If(self.token.valid):
            m.d.sync += [
                self.memory.address.eq(self.memory.address + 1),
                self.entry.eq(self.entry + self.step),
            ]
            with m.If(self.token.position_end):
                m.d.sync += self.entry.eq(0)
        with m.If(self.load):
            m.d.sync += [self.memory.address.eq(self.base), self.entry.eq(0)]
        with m.If(arrived):
            m.d.sync += self.slope.eq(self.negative)
            for lane in range(LANES):
                slot = self.memory.data.word_select(lane, 16).as_signed()
                m.d.sync += self.operand[lane].eq(saturate(slot + self.shift_in, 16))
        return m


class Factors(wiring.Component):
    """The position's four factors for the token in cycle t, in t + 1.

    They are taken with the position's first token: its block is in the `window` by then, and
    the window moves on before the position's last token is here.
    """

    token: In(Token)
    window: In(WINDOW)
    factors: Out(data.ArrayLayout(unsigned(FACTOR_WIDTH), LANES))

    def elaborate(self, platform):
        m = Module()
        opens = Signal(init=1)
        with m.If(self.token.valid):
            m.d.sync += opens.eq(self.token.position_end)
            with m.If(opens):
                for lane in range(LANES):
                    row, column = divmod(lane, 2)
                    m.d.sync += self.factors[lane].eq(self.window[1 + row][1 + column])
        return m
