"""A byte as the bits of a thermometer."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import GROUP


class Thermometer(wiring.Component):
    """Combinational: bit l is 1 where byte >= level[GROUP * group + l].

    level[l] = 256 * (l + 1) / (levels + 1), rounded. As `levels` is even none of them lies halfway,
    and byte * (levels + 1) + levels / 2, without its lowest eight bits, is how many are reached;
    so bits above the last level are 0. FracBNN, 2012.12206.
    Golden: bnnhw.golden.operations.pixel_bits.

    Members
    -------
    byte : In(8)
    group : In(range(groups))           which 16 levels
    bits : Out(16)                      combinational
    """

    def __init__(self, *, levels: int) -> None:
        self._levels = levels
        super().__init__(
            {"byte": In(8), "group": In(range(-(-levels // GROUP))), "bits": Out(GROUP)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        factor = self._levels + 1
        total = sum(self.byte << bit for bit in range(8) if factor >> bit & 1) + self._levels // 2
        reached, low = Signal(range(factor)), Signal(range(GROUP))
        m.d.comb += reached.eq(total >> 8)
        group = reached[4:]
        full, here = group > self.group, group == self.group
        m.d.comb += low.eq(Mux(full, GROUP - 1, Mux(here, reached[:4], 0)))
        with m.Switch(low):
            for count in range(GROUP):
                with m.Case(count):
                    m.d.comb += self.bits.eq(Cat(Const((1 << count) - 1, GROUP - 1), full))
        return m
