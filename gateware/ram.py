"""A memory with the engine's port, inferred: no primitive of a family."""

from collections.abc import Sequence

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from bnnhw.gateware.memory import NIBBLES, MemorySignature
from bnnhw.gateware.parameters import WORD_WIDTH

NIBBLE = WORD_WIDTH // NIBBLES


class Ram(wiring.Component):
    """A memory of one port.

    Parameters
    ----------
    words, width : int         its size
    apart : int                bits that are written apart, in whole nibbles
    init : sequence of int     its first words when the device starts; without, it begins anywhere
    exclusive : bool           whether it reads in the cycles without a write alone, as SPRAM must

    Members
    -------
    port : In(MemorySignature)    as it has them
    """

    def __init__(
        self, words: int, width: int = WORD_WIDTH, apart: int = NIBBLE, init: Sequence[int] = (),
        *, exclusive: bool = False,
    ) -> None:  # fmt: skip
        if len(init) > words:
            raise ValueError(f"init: {len(init)} words, the memory has {words}")
        self._words, self._width, self._apart, self._init = words, width, apart, init
        self._exclusive = exclusive
        super().__init__({"port": In(MemorySignature(width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port = self.port
        m.submodules.ram = ram = Memory(shape=self._width, depth=self._words, init=self._init)
        read, write = ram.read_port(), ram.write_port(granularity=self._apart)
        m.d.comb += [
            read.addr.eq(port.address),
            port.read_data.eq(read.data),
            write.addr.eq(port.address),
            write.data.eq(port.write_data),
            write.en.eq(Mux(port.write, port.write_mask[:: self._apart // NIBBLE], 0)),
        ]
        if self._exclusive:
            m.d.comb += read.en.eq(~port.write)
        return m
