"""A serial port, 8 data bits, no parity, one stop bit: a line as bytes, and bits as a line.

Both ends count their places in a byte alike: 8 to 15 are its data bits, lowest first, 0 is the stop
bit and 1 is idle. The receiver has the start bit at 7.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check

MINIMUM_DIVISOR = 4
_IDLE, _START, _DATA = 1, 7, 8


def _check(divisor: int) -> None:
    if divisor < MINIMUM_DIVISOR:
        raise ValueError(f"divisor={divisor}: a bit needs at least {MINIMUM_DIVISOR} clock cycles")


class Receiver(wiring.Component):
    """Turns the line into bytes.

    Samples each bit once, half a bit after its edge. A start bit that is 1 in its middle is none. A
    byte with a wrong stop bit is dropped. The register that bits are shifted into is the byte's
    only one, so a byte must be taken before the middle of the next start bit. Else it is dropped.

    Parameters
    ----------
    divisor : int    clock cycles a bit, at least 4

    Members
    -------
    line : In(1)                 already synchronised to the clock; 1 when idle
    o : Out(stream of 8 bits)    a byte, from the middle of its stop bit on, for a bit or more
    shift : Out(1)               strobe: `line` is a data bit; also of bytes that are dropped
    """

    line: In(1, init=1)
    o: Out(stream.Signature(8))
    shift: Out(1)

    def __init__(self, divisor: int) -> None:
        _check(divisor)
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase = Signal(range(self._divisor))
        place = Signal(4, init=_IDLE)
        bits, sample = self.o.payload, Signal()
        idle, data = place == _IDLE, place[3]
        m.d.comb += [sample.eq((phase == 0) & ~idle), self.shift.eq(sample & data)]
        check(m, platform, data | (place < 2) | (place == _START), "the place in a byte is none")
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        m.d.sync += phase.eq(phase - 1)
        with m.If(sample):
            m.d.sync += [phase.eq(self._divisor - 1), place.eq(place + 1)]
            with m.If(data):
                m.d.sync += bits.eq(Cat(bits[1:], self.line))
            with m.Else():  # a start bit, which must be 0, or a stop bit, which must be 1
                m.d.sync += self.o.valid.eq(self.line & ~place[0])
                with m.If(self.line):
                    m.d.sync += place.eq(_IDLE)
        with m.If(idle):
            m.d.sync += phase.eq(self._divisor // 2 - 1)
            with m.If(~self.line):
                m.d.sync += place.eq(_START)
        return m


class Transmitter(wiring.Component):
    """Turns bits into the line, eight of them a byte.

    A byte begins when its first bit is offered. The bits after it are then taken without asking, a
    bit time after the other.

    Parameters
    ----------
    divisor : int    clock cycles a bit, at least 4

    Members
    -------
    i : In(stream of 1 bit)    lowest first; the first of a byte stays until it is taken
    index : Out(3)             which bit of the byte is taken next
    tick : Out(1)              strobe, once a bit time
    line : Out(1)              registered; the start bit begins less than a bit time after the offer
    """

    i: In(stream.Signature(1))
    index: Out(3)
    tick: Out(1)
    line: Out(1, init=1)

    def __init__(self, divisor: int) -> None:
        _check(divisor)
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase = Signal(range(self._divisor))
        place = Signal(4, init=_IDLE)
        tick, data = self.tick, place[3]
        bit = Signal(init=1)  # a bit time has cycles enough to have it from a register
        m.d.sync += bit.eq(~data | self.i.payload)
        m.d.comb += [
            tick.eq(phase == 0),
            self.index.eq(place),
            self.i.ready.eq(tick & data),
        ]
        check(m, platform, ~self.i.ready | self.i.valid, "a byte's bit is not there in its time")
        m.d.sync += phase.eq(phase - 1)
        with m.If(tick):
            m.d.sync += [
                phase.eq(self._divisor - 1),
                place.eq(place + 1),
                self.line.eq(bit),
            ]
            with m.If(place == _IDLE):
                m.d.sync += place.eq(_IDLE)
                with m.If(self.i.valid):
                    m.d.sync += [place.eq(_DATA), self.line.eq(0)]
        return m
