"""A byte as the bits of a thermometer."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import GROUP


class Thermometer(wiring.Component):
    """Combinational: bit l is 1 where byte >= level[GROUP * group + l].

    The levels are `limits`, bytes from 1, or without them
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

    def __init__(self, *, levels: int, limits: tuple[int, ...] = ()) -> None:
        self._levels, self._limits = levels, limits
        super().__init__(
            {"byte": In(8), "group": In(range(-(-levels // GROUP))), "bits": Out(GROUP)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._limits:
            self._compare(m)
            return m
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

    def _compare(self, m: Module) -> None:
        """A comparator for each bit, with the group's own of its levels; 256 is never reached."""
        for bit in range(GROUP):
            limits = [*self._limits[bit::GROUP], 256]  # an index past the end takes the last
            m.d.comb += self.bits[bit].eq(self.byte >= Array(map(Const, limits))[self.group])
