"""The port to the large memory: 64 bits wide, one access a cycle."""

from amaranth import unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ADDRESS_WIDTH = 15  # bits; a board with fewer words leaves the upper ones unconnected
WORD_WIDTH = 64
NIBBLES = WORD_WIDTH // 4


class MemorySignature(wiring.Signature):
    """One access a cycle, seen by the requester. Read data is valid in the cycle after.

    Read data after a cycle with `write` set is undefined. On iCE40 the memory is four SPRAMs
    side by side; bit 0 of the word is bit 0 of the first.

    Members
    -------
    address : Out(15)                   of the word
    write_data : Out(64)                with `write`
    write_mask : Out(16)                a bit for each nibble, 1 writes it; with `write`
    write : Out(1)                      the access is a write
    read_data : In(64)                  the word of the cycle before, unless that wrote
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "address": Out(unsigned(ADDRESS_WIDTH)),
                "write_data": Out(unsigned(WORD_WIDTH)),
                "write_mask": Out(unsigned(NIBBLES)),
                "write": Out(1),
                "read_data": In(unsigned(WORD_WIDTH)),
            }
        )


class FetchRequest(wiring.Signature):
    """A word wanted from the memory; its data come the cycle after `grant`.

    Members
    -------
    request : Out(1)                    a word is wanted
    grant : In(1)                       it is read in this cycle
    address : Out(15)                   of the word; with `request`
    data : In(64)                       the word, in the cycle after `grant`
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "request": Out(1),
                "grant": In(1),
                "address": Out(unsigned(ADDRESS_WIDTH)),
                "data": In(unsigned(WORD_WIDTH)),
            }
        )


class WriteRequest(wiring.Signature):
    """A word for the memory, held until `grant`.

    Members
    -------
    request : Out(1)                    a word is to be written
    grant : In(1)                       it is written in this cycle
    address, data : Out(15), Out(64)    of the word; with `request`
    mask : Out(16)                      a bit for each nibble, 1 writes it; with `request`
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "request": Out(1),
                "grant": In(1),
                "address": Out(unsigned(ADDRESS_WIDTH)),
                "data": Out(unsigned(WORD_WIDTH)),
                "mask": Out(unsigned(NIBBLES)),
            }
        )
