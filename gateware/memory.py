"""The port to a large memory, one access a cycle, and that to a stream of words."""

from amaranth import unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import ADDRESS_WIDTH, WORD_WIDTH

NIBBLES = WORD_WIDTH // 4


class MemorySignature(wiring.Signature):
    """One access a cycle, seen by the requester. Read data is valid in the cycle after.

    Read data after a cycle with `write` set is undefined. On iCE40 the memory of 64 bits is four
    SPRAMs side by side; bit 0 of the word is bit 0 of the first.

    Members
    -------
    address : Out(15)                   of the word
    write_data : Out(width)             with `write`
    write_mask : Out(16)                a bit for each nibble, 1 writes it; with `write`
    write : Out(1)                      the access is a write
    read_data : In(width)               the word of the cycle before, unless that wrote
    """

    def __init__(self, width: int = WORD_WIDTH) -> None:
        super().__init__(
            {
                "address": Out(unsigned(ADDRESS_WIDTH)),
                "write_data": Out(unsigned(width)),
                "write_mask": Out(unsigned(width // 4)),
                "write": Out(1),
                "read_data": In(unsigned(width)),
            }
        )


class FetchRequest(wiring.Signature):
    """A word wanted from the memory; its data come in the second cycle after `grant`.

    Members
    -------
    request : Out(1)                    a word is wanted
    grant : In(1)                       it is read in the next cycle
    address : Out(15)                   of the word; with `request`
    data : In(width)                    the word, in the second cycle after `grant`
    """

    def __init__(self, width: int = WORD_WIDTH) -> None:
        super().__init__(
            {
                "request": Out(1),
                "grant": In(1),
                "address": Out(unsigned(ADDRESS_WIDTH)),
                "data": In(unsigned(width)),
            }
        )


class WriteRequest(wiring.Signature):
    """A word for the memory, held until `grant`.

    Members
    -------
    request : Out(1)                    a word is to be written
    grant : In(1)                       it is written in this cycle
    address, data : Out(15), Out(width)    of the word; with `request`
    mask : Out(width / 4)               a bit for each nibble, 1 writes it; with `request`
    """

    def __init__(self, width: int = WORD_WIDTH) -> None:
        super().__init__(
            {
                "request": Out(1),
                "grant": In(1),
                "address": Out(unsigned(ADDRESS_WIDTH)),
                "data": Out(unsigned(width)),
                "mask": Out(unsigned(width // 4)),
            }
        )


class WordSource(wiring.Signature):
    """Words of a stream in order, seen by who takes them.

    A word that is granted comes some cycles later, with `valid` for one cycle. The next one may be
    granted before that, and `short`, which belongs to the last word granted, is taken after that.

    Members
    -------
    restart : Out(1)                    strobe, with `checked`: the next word is the first
    request : Out(1)                    a word is wanted
    grant : In(1)                       it will come; with `request`
    short : Out(1)                      the word on its way has 48 bits
    valid : In(1)                       `data` is a word
    data : In(64)                       with `valid`; of a short word the upper 16 mean nothing
    checked : In(1)                     all words were read, and they are right; until `restart`
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "restart": Out(1),
                "request": Out(1),
                "grant": In(1),
                "short": Out(1),
                "valid": In(1),
                "data": In(unsigned(WORD_WIDTH)),
                "checked": In(1),
            }
        )
