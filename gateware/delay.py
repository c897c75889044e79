"""A pipeline delay."""

from amaranth import Module, ShapeLike, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Delay(wiring.Component):
    """`o` is `i` as it was `cycles` cycles ago.

    Members
    -------
    i : In(shape)                       in cycle t
    o : Out(shape)                      in t + `cycles`; combinational if that is 0
    """

    def __init__(self, shape: ShapeLike, cycles: int) -> None:
        self._shape, self._cycles = shape, cycles
        super().__init__({"i": In(shape), "o": Out(shape)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = self.i
        for cycle in range(self._cycles):
            previous, value = value, Signal(self._shape, name=f"delay_{cycle}")
            m.d.sync += value.eq(previous)
        m.d.comb += self.o.eq(value)
        return m
