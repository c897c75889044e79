"""What a board offers, in plain numbers: for the planner, the builder and the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

BYTE, NIBBLE = 8, 4  # bits


@dataclass(frozen=True)
class Coefficient:
    """What something takes, for the estimate of an inference's energy.

    value : in joules each time it happens; of what is always there in watts.
    source : with the way from what was published to the value.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Part:
    """A device. option : nextpnr's. The others are as a Board has them."""

    device: str
    option: str
    budget: dict[str, int]
    energy: Mapping[str, Coefficient] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    family : of the device, which says what tools build for it (bnnhw.flow.families).
    constraints : suffix of the pins' file, and nextpnr's option for it.
    name : of its module in boards/ and on the command line.
    device, package : as its maker writes them.
    crystal_hz, clock_hz : of the input clock; of the design unless the user asks for another.
    budget : everything on the device, by the names that its family gives its resources. All have
        `ebr`, block RAMs, and `dsp`, multipliers.
    memory_words, memory_ebr : 64-bit words of the large memory; block RAMs that it takes.
    ebr_bits, ebr_width : of a block RAM that is as wide as it can be: bits that memories use, and
        of a word.
    most_pe : output channels in parallel, at most; more than one where memories are of block RAMs.
    flash_offset, flash_bytes : of the boot image, whose room ends at flash_bytes.
    max_baud : fastest serial rate that is safe.
    synth_opts : of the family's synthesis. nextpnr_opts : that choose the device and its router.
    pack_opts : of the program that makes the bitstream.
    larger : board on which what this has no room for is measured; None if there is none.
    bitstream_offset : of the bitstream in the flash. loader : openFPGALoader's name of the board.
    usb : of the serial port: vendor, product, and which of the chip's ports; None if any adapter.
    load : the command that puts {folder}'s bitstream and flash.bin, at {offset}, on the board.
    energy : what the device takes, by what bnnhw.cost.energy asks for; empty if nobody knows.
    """

    family: ClassVar[str]
    constraints: ClassVar[str]
    name: str
    device: str
    package: str
    crystal_hz: int
    clock_hz: int
    budget: dict[str, int]
    memory_words: int
    memory_ebr: int
    ebr_bits: int
    ebr_width: int
    flash_offset: int
    flash_bytes: int
    max_baud: int
    synth_opts: tuple[str, ...]
    nextpnr_opts: tuple[str, ...]
    pack_opts: tuple[str, ...]
    load: str
    loader: str
    bitstream_offset: int = 0
    larger: str | None = None
    usb: tuple[int, int, int] | None = None
    energy: Mapping[str, Coefficient] = field(default_factory=dict)
    most_pe: int = 1

    @property
    def streams(self) -> bool:
        """Whether program and weights can come from the flash while an image is worked on."""
        return False

    def depth(self, words: int, apart: int = BYTE) -> int:
        """Returns the words of a memory of block RAMs that has room for so many: a power of two.

        apart : bits that are written apart; block RAMs have enables for bytes, so that fewer bits
            have block RAMs of their own.
        """
        widest = self.ebr_width if apart >= BYTE else apart
        return int(max(1 << (words - 1).bit_length(), self.ebr_bits // widest))

    def rams(self, words: int, width: int, apart: int = BYTE) -> int:
        """Returns how many block RAMs that memory takes."""
        return -(-self.depth(words, apart) * width // self.ebr_bits)


@dataclass(frozen=True)
class Memories:
    """Memories of an engine.

    words : of the large one; None: all that the board has. stream_words : of the residual stream's
    own, of `slot_width` bits a number; 0: it has none.
    """

    words: int | None = None
    stream_words: int = 0
    slot_width: int = 8


ONE_MEMORY = Memories()


BAUDS = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 500_000, 115_200)
MINIMUM_CYCLES_PER_BIT = 8
BAUD_TOLERANCE = 0.015


def baud_divisor(clock_hz: float, max_baud: int) -> tuple[int, int]:
    """Returns the fastest serial rate that the clock reaches: (baud, cycles a bit).

    Raises ValueError if no rate of BAUDS comes within BAUD_TOLERANCE.
    """
    for baud in BAUDS:
        divisor = round(clock_hz / baud)
        error = abs(clock_hz / max(divisor, 1) / baud - 1)
        if baud <= max_baud and divisor >= MINIMUM_CYCLES_PER_BIT and error <= BAUD_TOLERANCE:
            return baud, divisor
    raise ValueError(f"clock of {clock_hz / 1e6:g} MHz: no serial rate is within 1.5 % of it")
