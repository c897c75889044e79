"""The boot image in a SPI flash: its format, and the reader that checks it.

Image: magic (u32), payload length in bytes (u32), payload, check sum (u32), all little-endian but
the check sum. The check sum is CRC-32/BZIP2 of everything before it, most significant byte first:
that is the bit order of the SPI bus, so the reader needs one bit a step and no second register.
"""

import struct
import zlib
from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check, check_held

MAGIC = b"BNN1"
HEADER_BYTES = 8
CHECK_BYTES = 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_WAKE, _READ = 0xAB, 0x03


def checksum(content: bytes) -> int:
    """Returns CRC-32/BZIP2 of bytes: the common CRC-32, bytes and result bit-reversed."""
    common = zlib.crc32(content.translate(_REVERSED))
    return int(f"{common:032b}"[::-1], 2)


def boot_image(payload: bytes) -> bytes:
    """Returns the bytes to write to the flash for a payload of bytes."""
    content = MAGIC + struct.pack("<I", len(payload)) + payload
    return content + struct.pack(">I", checksum(content))


class FlashReader(wiring.Component):
    """Reads a boot image once after start, streams its payload and checks it.

    Single-bit SPI, mode 0, at half the clock. Wakes the flash (0xAB), waits 248 cycles, reads
    (0x03) from `offset`. The bus clock pauses while a byte is not taken. An image of another
    length, an erased flash or a flipped bit make the check sum wrong.

    Parameters
    ----------
    offset : int    address of the image in the flash, 24 bits
    length : int    bytes of the payload, 1 or more

    Members
    -------
    select : Out(1)             to the flash, active high; registered
    clock : Out(1)              to the flash; registered
    copi : Out(1)               to the flash; changes as the clock falls
    cipo : In(1)                from the flash; sampled as the clock falls
    o : Out(stream of 8 bits)   the payload, a byte from the cycle after its last bit on
    done : Out(1)               the image is read to its end, for good; registered
    error : Out(1)              its check sum was wrong; registered, never without `done`
    """

    select: Out(1)
    clock: Out(1)
    copi: Out(1)
    cipo: In(1)
    o: Out(stream.Signature(8))
    done: Out(1)
    error: Out(1)

    def __init__(self, *, offset: int, length: int) -> None:
        if not 0 <= offset < 1 << 24:
            raise ValueError(f"offset={offset:#x}: a flash address has 24 bits")
        if length < 1:
            raise ValueError(f"length={length}: the payload must have at least one byte")
        self._offset = offset
        self._length = length
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.check = crc = catalog.CRC32_BZIP2(data_width=1).create()
        step = Signal()  # the last cycle of a bit
        count = Signal(8)  # bits, and cycles of the wait
        bits = Signal(8)
        m.d.comb += [step.eq(self.clock), crc.data.eq(self.cipo), self.o.payload.eq(bits)]
        check_held(m, platform, "o", self.o)
        check(m, platform, self.done | ~self.error, "an error before the end")
        with m.If(step):
            m.d.sync += [count.eq(count + 1), bits.eq(Cat(self.cipo, bits[:-1]))]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.select & ~self.o.valid):
            m.d.sync += self.clock.eq(~self.clock)

        with m.FSM():
            with m.State("Start"):
                m.d.sync += self.select.eq(1)
                m.next = "Wake"
            with m.State("Wake"):
                m.d.comb += self.copi.eq(_msb_first(_WAKE, 8, count[:3]))
                with m.If(step & (count[:3] == 7)):
                    m.d.sync += self.select.eq(0)
                    m.next = "Wait"
            with m.State("Wait"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == 255):
                    m.d.sync += self.select.eq(1)
                    m.next = "Command"
            with m.State("Command"):
                word = (_READ << 24) | self._offset
                m.d.comb += self.copi.eq(_msb_first(word, 32, count[:5]))
                with m.If(step & (count[:5] == 31)):
                    m.next = "Header"
            self._receive(m, platform, step, count, crc)
            with m.State("End"):
                m.d.sync += [self.done.eq(1), self.error.eq(~crc.match_detected)]
        return m

    def _receive(self, m: Module, platform: object, step: Signal, count: Signal, crc: Any) -> None:
        """The states that read the image's three parts, byte by byte."""
        index = Signal(range(max(self._length, HEADER_BYTES)))
        parts = (("Header", HEADER_BYTES), ("Payload", self._length), ("Check", CHECK_BYTES))
        for (name, size), after in zip(parts, ("Payload", "Check", "End"), strict=True):
            with m.State(name):
                m.d.comb += crc.valid.eq(step)
                with m.If(step & (count[:3] == 7)):
                    m.d.sync += index.eq(index + 1)
                    if name == "Payload":
                        check(m, platform, ~self.o.valid, "a byte replaces one that is not taken")
                        m.d.sync += self.o.valid.eq(1)
                    with m.If(index == size - 1):
                        m.d.sync += index.eq(0)
                        if after == "End":
                            m.d.sync += self.select.eq(0)
                        m.next = after


def _msb_first(word: int, width: int, index: Value) -> Value:
    """Returns bit `index` of a constant, counted from its most significant bit."""
    return Const(word, width)[::-1].bit_select(index, 1)
