"""Block RAM next to the array: the window of features and the weights with their parameters."""

from typing import Any

from amaranth import Cat, Module, ShapeLike, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.array import WEIGHTS, WINDOW
from bnnhw.gateware.memory import WORD_WIDTH
from bnnhw.gateware.parameters import GROUP, LANES

# No address is read while it is written, so synthesis need not emulate what happens then.
UNCHECKED = {"no_rw_check": 1}
ROWS = 4  # rows of blocks in the window buffer: three in use, one being filled


def ram(m: Module, name: str, *, shape: ShapeLike, depth: int) -> tuple[Any, Any]:
    """A block RAM submodule `name` with one read and one write port, never colliding."""
    m.submodules[name] = storage = memory.Memory(shape=shape, depth=depth, init=[], attrs=UNCHECKED)
    return storage.read_port(), storage.write_port()


class WindowBuffer(wiring.Component):
    """Four rows of 2 x 2 blocks, so stored that any 4 x 4 window is one read. Latency 1.

    Each of the 16 positions of the window has a block RAM of its own, which holds every pixel
    of the position's parity. A write is one word, a block's four pixels of 16 channels.

    Members
    -------
    rows : In(3 x 2 bits)               slots of the blocks above, at and below the window's own
    columns : In(3 x column)            entries of the blocks left of, at and right of it
    window : Out(WINDOW)                what lies there, a cycle after `rows` and `columns`
    write : In(1)                       `write_data` is stored at the end of this cycle
    write_row, write_column : In(2), In(column)    the block's slot and entry; with `write`
    write_data : In(4 x 16 bits)        a block [lane]; with `write`
    """

    def __init__(self, *, depth: int) -> None:
        self._depth = depth
        column = unsigned(exact_log2(depth // ROWS))
        super().__init__(
            {
                "rows": In(data.ArrayLayout(unsigned(2), 3)),
                "columns": In(data.ArrayLayout(column, 3)),
                "window": Out(WINDOW),
                "write": In(1),
                "write_row": In(2),
                "write_column": In(column),
                "write_data": In(data.ArrayLayout(unsigned(GROUP), LANES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = (0, 1, 1, 2)  # the block, of the three, that a row or column of the window is in
        parity = (1, 0, 1, 0)
        for y in range(4):
            for x in range(4):
                read, write = ram(m, f"position_{y}{x}", shape=GROUP, depth=self._depth)
                m.d.comb += [
                    read.addr.eq(Cat(self.columns[block[x]], self.rows[block[y]])),
                    self.window[y][x].eq(read.data),
                    write.addr.eq(Cat(self.write_column, self.write_row)),
                    write.data.eq(self.write_data[2 * parity[y] + parity[x]]),
                    write.en.eq(self.write),
                ]
        return m


class WeightBuffer(wiring.Component):
    """Weights of one step, an entry per output channel and fold, with the channel's parameters.

    An entry is 192 bits, written as three words: word ky holds its row of three taps in bits 0
    to 47 and a parameter (scale, bias, threshold) in 48 to 63. Latency 1. The weights and each
    parameter have a read address of their own, for they are used in different pipeline stages.

    Members
    -------
    weight_entry : In(entry)            of the weights; `weights` has them in the next cycle
    weights : Out(WEIGHTS)              3 x 3 taps of 16 bits [ky][kx]
    scale_entry, bias_entry, threshold_entry : In(entry)    of each parameter
    scale, bias, threshold : Out(signed 16)    a cycle after its entry; 0 where there is none
    write : In(1)                       `write_data` is stored at the end of this cycle
    write_entry, write_row : In(entry), In(2)    which word; with `write`
    write_data : In(64)                 the word; with `write`
    """

    def __init__(self, *, depth: int, thresholds: bool) -> None:
        self._depth = depth
        self._thresholds = thresholds
        entry = unsigned(exact_log2(depth))
        super().__init__(
            {
                "weight_entry": In(entry),
                "weights": Out(WEIGHTS),
                "scale_entry": In(entry),
                "scale": Out(signed(16)),
                "bias_entry": In(entry),
                "bias": Out(signed(16)),
                "threshold_entry": In(entry),
                "threshold": Out(signed(16)),
                "write": In(1),
                "write_entry": In(entry),
                "write_row": In(2),
                "write_data": In(WORD_WIDTH),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reads = [self._bank(m, f"tap_{ky}{kx}", ky, kx) for ky in range(3) for kx in range(3)]
        for index, read in enumerate(reads):
            m.d.comb += [
                read.addr.eq(self.weight_entry),
                self.weights[index // 3][index % 3].eq(read.data),
            ]
        outputs = [(self.scale, self.scale_entry), (self.bias, self.bias_entry)]
        if self._thresholds:
            outputs.append((self.threshold, self.threshold_entry))
        for row, (output, entry) in enumerate(outputs):
            read = self._bank(m, f"parameter_{row}", row, 3)
            m.d.comb += [read.addr.eq(entry), output.eq(read.data)]
        return m

    def _bank(self, m: Module, name: str, row: int, column: int) -> Any:
        read, write = ram(m, name, shape=16, depth=self._depth)
        m.d.comb += [
            write.addr.eq(self.write_entry),
            write.data.eq(self.write_data.word_select(column, 16)),
            write.en.eq(self.write & (self.write_row == row)),
        ]
        return read
