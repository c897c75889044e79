"""The array of processing elements: some output channels, four pixels, 144 synapses a cycle."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import GROUP, LANES
from bnnhw.gateware.popcount import TapMatches, add

WINDOW = data.ArrayLayout(data.ArrayLayout(unsigned(GROUP), 4), 4)  # [row][column], 4 x 4 pixels
WEIGHTS = data.ArrayLayout(data.ArrayLayout(unsigned(GROUP), 3), 3)  # [ky][kx]


class Outside(data.Struct):
    """Which rows and columns of a 4 x 4 window lie outside the map; 1 and 2 are its block.

    centre : of the upper left pixel's taps only its own counts; the others are outside as well.
    """

    rows: 4
    columns: 4
    centre: 1


class Dot(wiring.Component):
    """One pixel's processing element: half the +-1 dot product of nine taps of 16 channels.

    Latency 4 cycles, one result a cycle. With n taps not cleared,
    sum = matches - 8 * n, which is half of sum x * w over them.

    Members
    -------
    pixels, weights : In(3 x 3 taps [ky][kx] of 16 bits)    in cycle t
    clear : In(3 x 3 bits [ky][kx])     the taps that count as zero; in t + 1
    short_rows, short_columns : In(1)   a row, a column of taps is cleared; in t + 2
    centre : In(1)                      all taps but the middle one are cleared; in t + 2
    sum : Out(signed 8)                 registered; in t + 4
    """

    pixels: In(WEIGHTS)
    weights: In(WEIGHTS)
    clear: In(data.ArrayLayout(data.ArrayLayout(1, 3), 3))
    short_rows: In(1)
    short_columns: In(1)
    centre: In(1)
    sum: Out(signed(8))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taps = []
        for ky in range(3):
            for kx in range(3):
                m.submodules[f"tap_{ky}{kx}"] = tap = TapMatches()
                m.d.comb += [
                    tap.a.eq(self.pixels[ky][kx]),
                    tap.b.eq(self.weights[ky][kx]),
                    tap.clear.eq(self.clear[ky][kx]),
                ]
                taps.append(tap)
        pairs = [add(taps[i].count, taps[i + 1].count, taps[i].spare) for i in (0, 2, 4, 6)]
        halves = [Signal(6, name=f"half_{i}") for i in range(2)]
        for index, half in enumerate(halves):
            carry = taps[1 + 4 * index].spare
            m.d.sync += half.eq(add(pairs[2 * index], pairs[2 * index + 1], carry))
        # The ninth tap takes the offset -8 * n, n in {9, 6, 4, 1}, in its stead.
        offset = Signal(signed(8))
        short = Cat(self.short_rows, self.short_columns)
        m.d.comb += offset.eq(Mux(short.all(), -8 * 4, Mux(short.any(), -8 * 6, -8 * 9)))
        with m.If(self.centre):
            m.d.comb += offset.eq(-8)
        rest = Signal(signed(8))
        loose = Signal(2)
        m.d.sync += [
            rest.eq(taps[8].count + offset),
            loose.eq(taps[3].spare + taps[7].spare),
        ]
        spare = Signal()
        m.d.sync += spare.eq(taps[8].spare)
        most = Signal(8)
        m.d.comb += most.eq(add(halves[0], halves[1], loose[0]))
        tail = Signal(signed(8))
        m.d.comb += tail.eq(rest + Cat(spare, loose[1]).as_unsigned())
        m.d.sync += self.sum.eq(most + tail)
        return m


class Array(wiring.Component):
    """For each of `pe` channels four processing elements on a 4 x 4 window; they share the
    channel's weights and accumulate.

    `acc[channel][lane]`, lane = 2 * row + column of the 2 x 2 output block, is half the
    accumulator. Latency 5 cycles from the operands, 6 with more channels than one: `first`, given
    with the operands of cycle t, starts a sum of several folds; `acc` is there in t + latency.
    `outside` is given with the operands too, all zero where padding is not masked.
    With more channels than one each two have registers of their own for the window, from which
    wires are short.

    Members
    -------
    window : In(WINDOW)                 4 x 4 pixels of 16 bits [row][column]; in cycle t
    weights : In(pe x WEIGHTS)          3 x 3 taps of 16 bits [ky][kx]; in t
    outside : In(Outside)               rows and columns that are padding; in t
    first : In(1)                       the sum starts with these operands; in t
    acc : Out(pe x 4 x signed acc_width)    registered; in t + latency
    """

    def __init__(self, *, acc_width: int, pe: int = 1) -> None:
        self.acc_width, self.pe = acc_width, pe
        sums = data.ArrayLayout(signed(acc_width), LANES)
        super().__init__(
            {
                "window": In(WINDOW),
                "weights": In(data.ArrayLayout(WEIGHTS, pe)),
                "outside": In(Outside),
                "first": In(1),
                "acc": Out(data.ArrayLayout(sums, pe)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outside, first = [self.outside], self.first
        if self.pe > 1:
            outside, first = [Signal(Outside, name="outside_0")], Signal(name="first_0")
            m.d.sync += [outside[0].eq(self.outside), first.eq(self.first)]
        for delay in (1, 2):
            later = Signal(Outside, name=f"outside_{delay}")
            m.d.sync += later.eq(outside[-1])
            outside.append(later)
        for delay in range(4):
            previous, first = first, Signal(name=f"first_{delay + 1}")
            m.d.sync += first.eq(previous)
        window = self.window
        for channel in range(self.pe):
            weights = self.weights[channel]
            if self.pe > 1:
                weights = Signal(WEIGHTS, name=f"weights_{channel}")
                m.d.sync += weights.eq(self.weights[channel])
                if channel % 2 == 0:
                    window = Signal(WINDOW, name=f"window_{channel}", attrs={"keep": 1})
                    m.d.sync += window.eq(self.window)
            for lane in range(LANES):
                total = self._lane(m, channel, lane, window, weights, outside)
                acc = self.acc[channel][lane]
                m.d.sync += acc.eq(Mux(first, 0, acc) + total)
        return m

    def _lane(
        self, m: Module, channel: int, lane: int, window: Any, weights: Any, outside: list[Any]
    ) -> Any:
        """Returns the sum of a channel's pixel."""
        row, column = divmod(lane, 2)
        m.submodules[f"dot_{channel}_{lane}"] = dot = Dot()
        m.d.comb += [
            dot.weights.eq(weights),
            dot.centre.eq(outside[2].centre),
            dot.short_rows.eq(outside[2].rows[row] | outside[2].rows[row + 2]),
            dot.short_columns.eq(outside[2].columns[column] | outside[2].columns[column + 2]),
        ]
        for ky in range(3):
            for kx in range(3):
                y, x = row + ky, column + kx
                m.d.comb += [
                    dot.pixels[ky][kx].eq(window[y][x]),
                    dot.clear[ky][kx].eq(outside[1].rows[y] | outside[1].columns[x]),
                ]
        return dot.sum
