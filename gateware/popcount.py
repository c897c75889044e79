"""Counting matches: XNOR and popcount in the form that is cheapest on iCE40.

Matches are taken three at a time: two LUTs give parity and carry of the first two, two more
fold in the third, so three synapses become a 2-bit number in four LUTs. The numbers are added
pairwise on carry chains, each of which takes one single match as its carry-in for one cell.
"""

from amaranth import Cat, Module, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import GROUP


def add(a: Value, b: Value, carry: Value | int = 0) -> Value:
    """a + b + carry, unsigned, one bit wider than the wider operand, on one carry chain.

    The carry enters through a bit below the sum, so that synthesis sees a plain addition and
    does not merge it with its neighbours into a compressor.
    """
    if isinstance(carry, int) and not carry:
        return a + b
    return (Cat(carry, a) + Cat(carry, b))[1:]


def full_adder(a: Value, b: Value, c: Value) -> Value:
    """a + b + c of three bits, as a 2-bit number."""
    half = a ^ b
    return Cat(half ^ c, (a & b) | (half & c))


class TapMatches(wiring.Component):
    """Matches of the 16 synapses of one tap, as 4-bit `count` plus 1-bit `spare`.

    Latency 2 cycles. `clear` acts on the second: with the operands of cycle t it belongs to
    cycle t + 1, and zeroes the result. A padded tap costs no logic that way: the clear is the
    registers' synchronous reset.

    Members
    -------
    a, b : In(16)                       features and weights of a tap; in cycle t
    clear : In(1)                       `count` and `spare` are 0; in t + 1
    count : Out(4)                      registered; in t + 2
    spare : Out(1)                      registered; in t + 2
    """

    a: In(unsigned(GROUP))
    b: In(unsigned(GROUP))
    clear: In(1)
    count: Out(unsigned(4))
    spare: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        match = Signal(GROUP)
        m.d.comb += match.eq(~(self.a ^ self.b))
        numbers = [Signal(2, name=f"number_{i}") for i in range(4)]
        singles = Signal(4)
        for index, number in enumerate(numbers):
            m.d.sync += number.eq(full_adder(*match[3 * index : 3 * index + 3]))
        m.d.sync += singles.eq(match[12:])

        low = Signal(3)
        high = Signal(3)
        m.d.comb += low.eq(add(numbers[0], numbers[1], singles[0]))
        m.d.comb += high.eq(add(numbers[2], numbers[3], singles[1]))
        with m.If(self.clear):
            m.d.sync += [self.count.eq(0), self.spare.eq(0)]
        with m.Else():
            m.d.sync += [self.count.eq(add(low, high, singles[2])), self.spare.eq(singles[3])]
        return m
