"""A stream of words in a QSPI flash: its format, and the reader that checks it.

Stream: words, each most significant nibble first, then their check sum as bnnhw.gateware.wire has
it, most significant nibble first. A word has 64 bits, or, where nobody needs its upper 16, 48. The
flash gives a nibble a clock, the upper one of a byte first. The stream is the payload of a boot
image.

Commands are those of the Winbond W25Q128JV: wake (0xAB), volatile write enable (0x50), status
register 2 with quad enable (0x31 0x02), fast read quad I/O (0xEB; address, mode bits and four dummy
clocks on four wires). The mode bits end each read. So the flash is never left in the
continuous-read mode, in which it would not hear the commands that configure the FPGA; one read goes
on through the whole stream, so that mode would save eight clocks of it.
"""

from collections.abc import Sequence
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc import Algorithm
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.checks import check, check_held
from bnnhw.gateware.delay import Delay
from bnnhw.gateware.flash import msb_first
from bnnhw.gateware.memory import WordSource
from bnnhw.gateware.parameters import SHORT_NIBBLES, WORD_NIBBLES
from bnnhw.gateware.wire import CHECK_BITS, CHECK_POLYNOMIAL, CHECK_START, checksum

NIBBLE = 4
CHECK_NIBBLES = 8
LATENCY = 2  # cycles from a clock's enable to its nibble from the input register
MODE = 0xFF  # ends the read with the select
WAIT = 255  # cycles, 3.9 us at 66 MHz; waking takes 3 us
SETTLE = 7  # cycles between two reads
ADDRESS_BITS = 24
SINGLE = 0b1101  # wires that are driven while the second brings single bits
SETUP = (("Wake", 0xAB, 8), ("Enable", 0x50, 8), ("Quad", 0x3102, 16))  # name, bits, how many


def stream_image(words: Sequence[int], short: Sequence[bool], start: int = CHECK_START) -> bytes:
    """Returns the bytes to write to the flash: the words and their check sum, which begins with
    `start`.

    Raises ValueError where a short word has more bits, or the words do not end with a byte.
    """
    sizes = [SHORT_NIBBLES if s else WORD_NIBBLES for s in short]
    for at, (word, size) in enumerate(zip(words, sizes, strict=True)):
        if word >> (NIBBLE * size):
            raise ValueError(f"words[{at}]={word:#x}: a short word has {NIBBLE * size} bits")
    digits = "".join(f"{word:0{size}x}" for word, size in zip(words, sizes, strict=True))
    content = bytes.fromhex(digits)  # 12 and 16 are even
    return content + checksum(content, start).to_bytes(CHECK_BITS // 8, "big")


class QuadReader(wiring.Component):
    """Reads a stream again and again, a nibble a clock, and checks it each time.

    After start the flash is set up, and the stream read once for its check sum alone. Then words
    are read as they are asked for; between two words the bus clock pauses. A wrong check sum, a
    restart before the stream's end or a word asked for after it is a `fault`, for good: no more
    words are granted. Between words, or after a fault, the bytes before the stream are read when
    they are asked for, and the stream goes on.

    The clock's cell gives a pulse in the cycle after `clock`, high in its second half (SPI mode 0).
    The other pins have registers, too: outputs are on the wires in the next cycle, and `i` is what
    was on them at the end of the last.

    Parameters
    ----------
    offset : int         address of the header, 24 bits; the stream follows
    header_bytes : int   of the header, 1 or more
    length : int         nibbles of the stream's words, a multiple of 2
    check_start : int    what the check sum starts from, 32 bits

    Members
    -------
    select : Out(1)                     to the flash, active high; registered
    clock : Out(1)                      the flash has a clock pulse in the next cycle
    o, oe : Out(4), Out(4)              to the wires, and which of them are driven
    i : In(4)                           from the wires
    words : In(WordSource)
    ready : Out(1)                      the whole stream was right once; stays high
    fault : Out(1)                      for good; registered
    read : In(1)                        read the header; held until the last byte is taken
    header : Out(stream of 8 bits)      what `read` asked for
    last : Out(1)                       with the last byte of header
    """

    def __init__(
        self, *, offset: int, header_bytes: int, length: int, check_start: int = CHECK_START
    ) -> None:
        if not 0 <= offset < 1 << ADDRESS_BITS:
            raise ValueError(f"offset={offset:#x}: a flash address has {ADDRESS_BITS} bits")
        if length < WORD_NIBBLES or length % 2:
            raise ValueError(f"length={length}: must be even, and {WORD_NIBBLES} or more")
        self._offset, self._header_bytes, self._length = offset, header_bytes, length
        self._start = offset + header_bytes
        self._check_start = check_start
        super().__init__(
            {
                "select": Out(1),
                "clock": Out(1),
                "o": Out(4),
                "oe": Out(4),
                "i": In(4),
                "words": In(WordSource()),
                "ready": Out(1),
                "fault": Out(1),
                "read": In(1),
                "header": Out(stream.Signature(8)),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(8)  # clocks of a state, and cycles of a wait
        fail = Signal()
        sums = Algorithm(
            crc_width=CHECK_BITS, polynomial=CHECK_POLYNOMIAL, initial_crc=self._check_start,
            reflect_input=False, reflect_output=False, xor_output=0,
        )  # fmt: skip
        m.submodules.crc = self._crc = sums(data_width=NIBBLE).create()
        check_held(m, platform, "header", self.header)
        self._left = Signal(range(self._length + 1), init=self._length)  # nibbles to read
        self._begun = Signal()  # some are read, and their check sum counts
        self._apart, self._ended = Signal(), Signal()  # the header is read, after the stream's end
        check(m, platform, ~(self.words.grant & self.fault), "a word is granted after a fault")
        with m.If(fail):
            m.d.sync += self.fault.eq(1)
        m.d.comb += self.oe.eq(SINGLE)
        reading, word_end = Signal(), Signal()
        self._arrive(m, reading, word_end)
        with m.FSM():
            self._set_up(m, count)
            self._address(m, count)
            self._words(m, count, fail, reading, word_end)
            self._header(m, count, reading)
        return m

    def _set_up(self, m: Module, count: Signal) -> None:
        """The commands of SETUP, single bits, each with a wait after it."""
        names = [name for name, _, _ in SETUP]
        with m.State("Start"):
            m.d.sync += [self.select.eq(1), count.eq(0)]
            m.next = names[0]
        for name, word, size in SETUP:
            self._single(m, name, word, size, count)
            with m.State(f"After {name}"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == 1):  # the last clock is over
                    m.d.sync += self.select.eq(0)
                with m.If(count == WAIT):
                    m.d.sync += [self.select.eq(1), count.eq(0)]
                    m.next = dict(pairwise([*names, "Command"]))[name]

    def _single(self, m: Module, name: str, word: int, size: int, count: Signal) -> None:
        """A state that gives a command's bits on the first wire, and goes on to that after it."""
        with m.State(name):
            bit = msb_first(word, size, count[: exact_log2(size)])
            m.d.comb += [self.clock.eq(1), self.o.eq(Cat(bit, 0, 1, 1))]
            m.d.sync += count.eq(count + 1)
            with m.If(count == size - 1):
                m.d.sync += count.eq(0)
                m.next = f"After {name}"

    def _address(self, m: Module, count: Signal) -> None:
        """The read command, its address and mode bits on four wires, and the dummy clocks."""
        self._single(m, "Command", 0xEB, 8, count)
        address = Signal(ADDRESS_BITS)
        read = ((self._length - self._left) >> 1)[:ADDRESS_BITS]
        m.d.comb += address.eq(Mux(self._apart, self._offset, self._start + read))
        quad = Cat(Const(MODE, 8), address)
        with m.State("After Command"):
            m.d.comb += [self.clock.eq(1), self.o.eq(quad.word_select(~count[:3], NIBBLE))]
            m.d.comb += self.oe.eq(0b1111)
            m.d.sync += count.eq(count + 1)
            with m.If(count == 7):
                m.next = "Dummy"
        with m.State("Dummy"):
            m.d.comb += [self.clock.eq(1), self.oe.eq(0)]
            m.d.comb += self._crc.start.eq(~self._begun & ~self._apart)
            m.d.sync += count.eq(count + 1)
            with m.If(count == 11):
                m.d.sync += count.eq(0)
                m.next = "Words"
                with m.If(self._apart):
                    m.next = "Header"

    def _arrive(self, m: Module, reading: Signal, word_end: Signal) -> None:
        """Shifts in the nibble of each clock that is `reading`, `LATENCY` cycles after it."""
        words, late = self.words, []
        for name, value in (("reads", reading), ("ends", word_end & self.ready)):
            m.submodules[name] = delay = Delay(1, LATENCY)
            m.d.comb += delay.i.eq(value)
            late.append(delay.o)
        m.d.comb += [self._crc.valid.eq(late[0] & ~self._apart), self._crc.data.eq(self.i)]
        m.d.sync += words.valid.eq(late[0] & late[1])
        with m.If(late[0]):
            m.d.sync += words.data.eq(Cat(self.i, words.data[:-NIBBLE]))

    def _words(
        self, m: Module, count: Signal, fail: Signal, reading: Signal, word_end: Signal
    ) -> None:
        """The states that read the words, whose nibbles `count` counts, and their check sum."""
        words, left = self.words, self._left
        with m.State("Words"):
            begins = count == 0
            m.d.comb += [
                self.oe.eq(0),
                words.grant.eq(begins & self.ready & ~self.fault & ~self.read),
                reading.eq(~begins | ~self.ready | (words.request & words.grant)),
                self.clock.eq(reading),
                word_end.eq(count == Mux(words.short, SHORT_NIBBLES, WORD_NIBBLES) - 1),
                fail.eq(words.restart),
            ]
            with m.If(begins & self.ready & self.read):
                m.d.sync += self.select.eq(0)
                m.next = "Pause"
            with m.If(reading):
                m.d.sync += self._begun.eq(1)
                m.d.sync += [count.eq(Mux(word_end, 0, count + 1)), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += [left.eq(self._length), count.eq(0)]
                    m.next = "Check"
        with m.State("Check"):
            m.d.comb += [self.oe.eq(0), self.clock.eq(1), reading.eq(1)]
            m.d.comb += fail.eq(words.restart | words.request)
            m.d.sync += count.eq(count + 1)
            with m.If(count == CHECK_NIBBLES - 1):
                m.next = "Drain"
        with m.State("Drain"):
            m.d.comb += [self.oe.eq(0), fail.eq(words.restart | words.request)]
            m.d.sync += count.eq(count + 1)
            with m.If(count == CHECK_NIBBLES + 1):
                m.d.sync += self.select.eq(0)
            with m.If(count == CHECK_NIBBLES + LATENCY):
                m.d.comb += fail.eq(words.restart | words.request | ~self._crc.match_detected)
                m.next = "End"
        with m.State("End"):
            m.d.comb += [words.checked.eq(self.ready & ~self.fault), fail.eq(words.request)]
            m.d.sync += [count.eq(0), self._begun.eq(0), self._ended.eq(1)]
            with m.If(~self.fault & (words.restart | ~self.ready)):
                m.d.sync += [self.select.eq(1), self.ready.eq(1), self._ended.eq(0)]
                m.next = "Command"
            with m.Elif(self.read):
                m.next = "Pause"

    def _header(self, m: Module, count: Signal, reading: Signal) -> None:
        """The states that read the header, a byte each time that the last is taken, and go back."""
        index = Signal(range(self._header_bytes))
        m.d.comb += self.header.payload.eq(self.words.data)
        m.d.comb += self.last.eq(index == self._header_bytes - 1)
        with m.State("Pause"):
            m.d.sync += [count.eq(count + 1), self._apart.eq(1), index.eq(0)]
            with m.If(count == SETTLE):  # the last clock of a word is over, and its nibble there
                m.d.sync += [self.select.eq(1), count.eq(0)]
                m.next = "Command"
        with m.State("Header"):
            m.d.comb += [self.oe.eq(0), self.clock.eq(reading), reading.eq(count < 2)]
            with m.If(count != 2 + LATENCY):
                m.d.sync += count.eq(count + 1)
            with m.Else():  # both nibbles are there
                m.d.comb += self.header.valid.eq(1)
                with m.If(self.header.ready):
                    m.d.sync += [count.eq(0), index.eq(index + 1)]
                    with m.If(self.last):
                        m.d.sync += self.select.eq(0)
                        m.next = "Resume"
        with m.State("Resume"):
            m.d.sync += [count.eq(count + 1), self._apart.eq(0)]
            with m.If(count == SETTLE):
                m.d.sync += count.eq(0)
                with m.If(self._ended):
                    m.next = "End"
                with m.Else():
                    m.d.sync += self.select.eq(1)
                    m.next = "Command"
