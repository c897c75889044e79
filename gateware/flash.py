"""Reads the boot image in a SPI flash: once to boot, its header again whenever the host asks.

bnnhw.gateware.wire has its format. Its check sum goes most significant bit first: that is the bit
order of the SPI bus, so the reader needs one bit a step and no second register.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check, check_held
from bnnhw.gateware.checksum import Checksum
from bnnhw.gateware.wire import (
    CHECK_BITS,
    CHECK_POLYNOMIAL,
    CHECK_START,
    IDENTITY_BYTES,
    UNIT_BYTES,
    reversed_bits,
)  # fmt: skip

_WAKE, _READ = 0xAB, 0x03


class FlashReader(wiring.Component):
    """Reads a boot image once after start, streams its payload and checks it.

    Single-bit SPI, mode 0, at half the clock: reads (0x03) from `offset` in a flash that is awake.
    The bus clock pauses while a byte is not taken. An image of another length or of another check
    sum's start, an erased flash or a flipped bit make it wrong.

    Parameters
    ----------
    offset : int         address of the image in the flash, 24 bits
    header_bytes : int   before the payload, IDENTITY_BYTES or more, in whole UNIT_BYTES
    length : int         bytes of the payload, UNIT_BYTES or a multiple
    check_start : int    what the check sum starts from, 32 bits
    warm_up : bool       whether a command goes first of which edges may be lost (0xAB)

    Members
    -------
    select : Out(1)                 to the flash, active high; registered
    clock : Out(1)                  to the flash; registered
    copi : Out(1)                   to the flash; changes as the clock falls
    cipo : In(1)                    from the flash; sampled as the clock falls
    o : Out(stream of 8 bits)       the payload, a byte from the cycle after its last bit on
    done : Out(1)                   the image is read to its end, for good; registered
    error : Out(1)                  its check sum is wrong, known with `done`; registered
    read : In(1)                    read the header anew; held until the last byte is taken
    header : Out(stream of 8 bits)  what `read` asked for
    last : Out(1)                   with the last byte of header
    """

    select: Out(1)
    clock: Out(1)
    copi: Out(1)
    cipo: In(1)
    o: Out(stream.Signature(8))
    done: Out(1)
    error: Out(1)
    read: In(1)
    header: Out(stream.Signature(8))
    last: Out(1)

    def __init__(
        self, *, offset: int, header_bytes: int, length: int, check_start: int = CHECK_START,
        warm_up: bool = False,
    ) -> None:  # fmt: skip
        if not 0 <= offset < 1 << 24:
            raise ValueError(f"offset={offset:#x}: a flash address has 24 bits")
        if header_bytes < IDENTITY_BYTES:
            raise ValueError(f"header_bytes={header_bytes}: must be at least {IDENTITY_BYTES}")
        for name, size in {"header_bytes": header_bytes, "length": length}.items():
            if size < UNIT_BYTES or size % UNIT_BYTES:
                raise ValueError(f"{name}={size}: must be a multiple of {UNIT_BYTES}")
        self._offset = offset
        self._header_bytes = header_bytes
        self._length = length
        self._check_start = check_start
        self._warm_up = warm_up
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.check = crc = Checksum(
            width=CHECK_BITS, polynomial=reversed_bits(CHECK_POLYNOMIAL, CHECK_BITS),
            init=reversed_bits(self._check_start, CHECK_BITS),
        )  # fmt: skip
        step = Signal()  # the last cycle of a bit
        count = Signal(5)  # bits
        bits = Signal(8)
        full, again = Signal(), Signal()  # a byte is in; the header is read for the host
        taken = Mux(again, self.header.ready, self.o.ready)
        m.d.comb += [
            step.eq(self.clock),
            crc.bit.eq(self.cipo),
            self.o.payload.eq(bits),
            self.o.valid.eq(full & ~again),
            self.header.payload.eq(bits),
            self.header.valid.eq(full & again),
        ]
        check_held(m, platform, "o", self.o)
        check_held(m, platform, "header", self.header)
        check(m, platform, ~full | ~step, "a byte replaces one that is not taken")
        with m.If(step):
            m.d.sync += [count.eq(count + 1), bits.eq(Cat(self.cipo, bits[:-1]))]
        with m.If(taken):
            m.d.sync += full.eq(0)
        with m.If(self.select & ~full):
            m.d.sync += self.clock.eq(~self.clock)

        with m.FSM():
            if self._warm_up:
                with m.State("Warm up"):  # a command to wake up, and what the flash answers
                    word = _WAKE << 24
                    m.d.comb += self.copi.eq(msb_first(word, 32, count))
                    m.d.sync += self.select.eq(1)
                    with m.If(step & count.all()):
                        m.d.sync += self.select.eq(0)
                        m.next = "Start"
            with m.State("Start"):
                m.d.sync += self.select.eq(1)
                m.next = "Command"
            with m.State("Command"):
                word = (_READ << 24) | self._offset
                m.d.comb += [self.copi.eq(msb_first(word, 32, count)), crc.start.eq(1)]
                with m.If(step & (count == 31)):
                    m.next = "Header"
            self._receive(m, step, count, crc, full, again)
            with m.State("End"):
                m.d.sync += self.done.eq(1)
                with m.If(self.read & ~full):
                    m.d.sync += again.eq(1)
                    m.next = "Start"
        return m

    def _receive(
        self, m: Module, step: Signal, count: Signal, crc: Checksum, full: Signal, again: Signal
    ) -> None:
        """The states that read the image's three parts; each begins with 0 bits in a unit."""
        index = Signal(range(max(self._length, self._header_bytes)))
        byte = step & count[:3].all()
        m.d.comb += crc.shift.eq(step)
        with m.State("Header"):
            end = index == self._header_bytes - 1
            with m.If(byte):
                m.d.sync += [index.eq(index + 1), full.eq(again), self.last.eq(end)]
                with m.If(end):
                    m.d.sync += index.eq(0)
                    m.next = "Payload"
                    with m.If(again):
                        m.d.sync += self.select.eq(0)
                        m.next = "End"
        with m.State("Payload"):
            with m.If(byte):
                m.d.sync += [index.eq(index + 1), full.eq(1)]
                with m.If(index == self._length - 1):
                    m.d.sync += index.eq(0)
                    m.next = "Check"
        with m.State("Check"):
            with m.If(step & crc.differs):
                m.d.sync += self.error.eq(1)
            with m.If(step & count.all()):
                m.d.sync += self.select.eq(0)
                m.next = "End"


def msb_first(word: int, width: int, index: Value) -> Value:
    """Returns bit `index` of a constant, counted from its most significant bit."""
    return Const(word, width)[::-1].bit_select(index, 1)
