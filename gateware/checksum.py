"""Check sums of bits as they come: of frames, and of the boot image."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Checksum(wiring.Component):
    """A CRC that takes a bit a cycle and is sent and checked in the same way.

    Fed its own `lowest` it moves down by a bit: so it is sent. While the right check sum is fed
    behind what it is of, `differs` stays 0.

    Parameters
    ----------
    width : int         bits
    polynomial : int    without its highest term; its lowest bit is that of the highest power left
    init : int          what it begins with

    Members
    -------
    start : In(1)      begin anew, whatever `shift`
    shift : In(1)      take a bit
    bit : In(1)        with shift
    lowest : Out(1)    next bit of the check sum of all bits before this cycle
    differs : Out(1)   `bit` is another
    """

    start: In(1)
    shift: In(1)
    bit: In(1)
    lowest: Out(1)
    differs: Out(1)

    def __init__(self, *, width: int, polynomial: int, init: int) -> None:
        self._width, self._polynomial, self._init = width, polynomial, init
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        crc = Signal(self._width, init=self._init)
        m.d.comb += [self.lowest.eq(crc[0]), self.differs.eq(self.bit ^ crc[0])]
        with m.If(self.start):
            m.d.sync += crc.eq(self._init)
        with m.Elif(self.shift):
            m.d.sync += crc.eq(Mux(self.differs, self._polynomial, 0) ^ crc[1:])
        return m
