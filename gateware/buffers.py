"""Block RAM next to the array: the window of features and the weights with their parameters."""

from amaranth import Cat, Module, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.array import WEIGHTS, WINDOW
from bnnhw.gateware.parameters import GROUP, LANES, WINDOW_ROWS, WORD_WIDTH, EngineParameters

# No address is read while it is written, so synthesis need not emulate what happens then.
UNCHECKED = {"no_rw_check": 1}


def ram(
    m: Module, name: str, *, shape: int, depth: int
) -> tuple[memory.ReadPort, memory.WritePort]:
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
        column = unsigned(exact_log2(depth // WINDOW_ROWS))
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


def weight_word(parameters: EngineParameters) -> data.StructLayout:
    """Returns the layout of a word on its way to the weight buffers: whether it is one, whose,
    where it belongs, its bits."""
    entry = exact_log2(parameters.weight_depth)
    members = dict(write=1, channel=range(parameters.pe), entry=entry, row=2, data=WORD_WIDTH)
    return data.StructLayout(members)


class WeightBuffer(wiring.Component):
    """Weights of one step for one of the channels in parallel, with the channels' parameters: an
    entry for each that it takes its turn with, and fold.

    An entry is 192 bits, written as three words: word ky holds its row of three taps in bits 0
    to 47 and a parameter (scale, bias, threshold) in 48 to 63. With an activation a channel's
    first entry has a fourth word: its slopes above and below zero and shift_out. Latency 1. The
    weights and each parameter that is used in another pipeline stage have a read address.
    Unless the weights of all steps are resident, of the buffer's halves those change places
    where `half` is 1; writes go as if it were not, so that a step of no more entries than a
    half has can be loaded while another is used.

    Members
    -------
    weight_entry : In(entry)            of the weights; `weights` has them in the next cycle
    weights : Out(WEIGHTS)              3 x 3 taps of 16 bits [ky][kx]
    half : In(1)                        of the buffer, which is read; constant while a step runs
    scale_entry, bias_entry, threshold_entry : In(entry)    of each parameter
    scale, bias, threshold : Out(signed 16)    a cycle after its entry; 0 where there is none
    slope_entry, last_entry : In(entry)    of both slopes, of shift_out
    above, below, shift_out : Out(signed 16)    a cycle after its entry; 0 where there is none
    write : In(1)                       `write_data` is stored at the end of this cycle
    write_entry, write_row : In(entry), In(2)    which word; with `write`
    write_data : In(64)                 the word; with `write`
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._depth = depth = parameters.weight_depth
        self._parameters = parameters
        entry = unsigned(exact_log2(depth))
        super().__init__(
            {
                "half": In(1),
                "weight_entry": In(entry),
                "weights": Out(WEIGHTS),
                "scale_entry": In(entry),
                "scale": Out(signed(16)),
                "bias_entry": In(entry),
                "bias": Out(signed(16)),
                "slope_entry": In(entry),
                "above": Out(signed(16)),
                "below": Out(signed(16)),
                "last_entry": In(entry),
                "shift_out": Out(signed(16)),
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
                read.addr.eq(self._place(self.weight_entry, self.half)),
                self.weights[index // 3][index % 3].eq(read.data),
            ]
        p = self._parameters
        for name, there, row, column, entry in (
            ("scale", True, 0, 3, self.scale_entry),
            ("bias", True, 1, 3, self.bias_entry),
            ("threshold", p.thresholds, 2, 3, self.threshold_entry),
            ("above", p.positive, 3, 0, self.slope_entry),
            ("below", p.activation, 3, 1, self.slope_entry),
            ("shift_out", p.shift_out, 3, 2, self.last_entry),
        ):
            if there:
                read = self._bank(m, name, row, column)
                place = self._place(entry, self.half)
                m.d.comb += [read.addr.eq(place), getattr(self, name).eq(read.data)]
        return m

    def _place(self, entry: Value, half: Value) -> Value:
        """Where an entry lies."""
        if self._parameters.resident:
            return entry
        return Cat(entry[:-1], entry[-1] ^ half)

    def _bank(self, m: Module, name: str, row: int, column: int) -> memory.ReadPort:
        read, write = ram(m, name, shape=16, depth=self._depth)
        m.d.comb += [
            write.addr.eq(self._place(self.write_entry, ~self.half)),
            write.data.eq(self.write_data.word_select(column, 16)),
            write.en.eq(self.write & (self.write_row == row)),
        ]
        return read
