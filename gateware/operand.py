"""What a step scales instead of an accumulator: a wide number from memory; its factors."""

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.array import WINDOW
from bnnhw.gateware.lane import Token
from bnnhw.gateware.memory import FetchRequest
from bnnhw.gateware.parameters import ADDRESS_WIDTH, FACTOR_WIDTH, LANES, WORD_WIDTH


class OperandReader(wiring.Component):
    """The operands of the token in cycle t, of its channels four lanes each, in t + 2, when the
    lanes want them.

    One word a token, in memory order from `base`; the request comes with the token and cannot
    wait.

    Members
    -------
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the first operand; with `load`
    token : In(Token)                   in cycle t
    operand : Out(pe x 4 x signed 16)   in t + 2
    memory : Out(FetchRequest)          granted in the cycle of its request
    """

    def __init__(self, pe: int = 1) -> None:
        lanes = data.ArrayLayout(signed(16), LANES)
        super().__init__(
            {
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "token": In(Token),
                "operand": Out(data.ArrayLayout(lanes, pe)),
                "memory": Out(FetchRequest(WORD_WIDTH * pe)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.memory.request.eq(self.token.valid),
            self.operand.eq(self.memory.data),
        ]
        with m.If(self.token.valid):
            m.d.sync += self.memory.address.eq(self.memory.address + 1)
        with m.If(self.load):
            m.d.sync += self.memory.address.eq(self.base)
        return m


class Factors(wiring.Component):
    """The position's four factors for the token in cycle t, in t + 1.

    They are the `upper` or the lower bytes of the block's word, as was said at `load`. They are
    taken with the position's first token: its block is in the `window` by then, and the window
    moves on before the position's last token is here.

    Members
    -------
    load : In(1)                        strobe: `upper` is taken
    upper : In(1)                       factors are the upper bytes; with `load`
    token : In(Token)                   in cycle t
    window : In(WINDOW)                 the block's word lies in its middle; in t
    factors : Out(4 x 8 bits)           registered; from t + 1 to the next position's first token
    """

    load: In(1)
    upper: In(1)
    token: In(Token)
    window: In(WINDOW)
    factors: Out(data.ArrayLayout(unsigned(FACTOR_WIDTH), LANES))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        opens, upper = Signal(init=1), Signal()
        with m.If(self.load):
            m.d.sync += upper.eq(self.upper)
        with m.If(self.token.valid):
            m.d.sync += opens.eq(self.token.position_end)
            with m.If(opens):
                for lane in range(LANES):
                    row, column = divmod(lane, 2)
                    word = self.window[1 + row][1 + column]
                    m.d.sync += self.factors[lane].eq(Mux(upper, word[FACTOR_WIDTH:], word))
        return m
