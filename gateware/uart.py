"""A serial port, 8 data bits, no parity, one stop bit, as byte streams."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check, check_held

MINIMUM_DIVISOR = 4


def _check(divisor: int) -> None:
    if divisor < MINIMUM_DIVISOR:
        raise ValueError(f"divisor={divisor}: a bit needs at least {MINIMUM_DIVISOR} clock cycles")


class Receiver(wiring.Component):
    """Turns the line into bytes.

    Samples each bit once, half a bit after its edge. A byte with a wrong stop bit is dropped.
    One byte is held. If it is not taken before the next is complete, the next replaces it.

    Parameters
    ----------
    divisor : int    clock cycles a bit, at least 4

    Members
    -------
    line : In(1)                 already synchronised to the clock; 1 when idle
    o : Out(stream of 8 bits)    a byte, from the middle of its stop bit on; registered
    """

    line: In(1, init=1)
    o: Out(stream.Signature(8))

    def __init__(self, divisor: int) -> None:
        _check(divisor)
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        busy = Signal()
        phase = Signal(range(self._divisor))
        # The marker 1 enters at the top with the start bit's sample and reaches bit 0 when all
        # nine samples before the stop bit are in: it replaces a bit counter.
        bits = Signal(10)

        check(m, platform, ~busy | bits.any(), "the marker of a byte is lost")
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(~busy):
            m.d.sync += [
                busy.eq(~self.line),
                phase.eq(self._divisor // 2 - 1),
                bits.eq(1 << 9),
            ]
        with m.Elif(phase == 0):
            m.d.sync += [phase.eq(self._divisor - 1), bits.eq(Cat(bits[1:], self.line))]
            with m.If(bits[0]):
                m.d.sync += busy.eq(0)
                with m.If(self.line & ~bits[1]):
                    m.d.sync += [self.o.payload.eq(bits[2:]), self.o.valid.eq(1)]
        with m.Else():
            m.d.sync += phase.eq(phase - 1)
        return m


class Transmitter(wiring.Component):
    """Turns bytes into the line; takes one every 10 bit times.

    Parameters
    ----------
    divisor : int    clock cycles a bit, at least 4

    Members
    -------
    i : In(stream of 8 bits)     a byte, taken when idle; it stays until then
    line : Out(1)                registered; the start bit comes two cycles after a byte is taken
    """

    i: In(stream.Signature(8))
    line: Out(1, init=1)

    def __init__(self, divisor: int) -> None:
        _check(divisor)
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase = Signal(range(self._divisor))
        bits = Signal(10)  # start bit at the bottom; the stop bit is the last 1: then all is 0
        idle = Signal()
        m.d.comb += [idle.eq(bits == 0), self.i.ready.eq(idle)]
        m.d.sync += self.line.eq(bits[0] | idle)
        check_held(m, platform, "i", self.i)

        with m.If(idle):
            m.d.sync += phase.eq(self._divisor - 1)
            with m.If(self.i.valid):
                m.d.sync += bits.eq(Cat(Const(0, 1), self.i.payload, Const(1, 1)))
        with m.Elif(phase == 0):
            m.d.sync += [phase.eq(self._divisor - 1), bits.eq(bits >> 1)]
        with m.Else():
            m.d.sync += phase.eq(phase - 1)
        return m
