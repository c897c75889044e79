"""Window buffer and weight buffer alone: what was written is read from wherever it is asked for."""

import numpy as np
import pytest

from bnnhw.gateware.array import WINDOW
from bnnhw.gateware.buffers import WeightBuffer, WindowBuffer
from tests.gateware.bench import play, simulate


def test_window_buffer_reads_any_window_of_four_rows_of_blocks():
    rng = np.random.default_rng(1)
    columns = 4
    dut = WindowBuffer(depth=4 * columns)
    pixels = rng.integers(0, 1 << 16, (8, 2 * columns))
    fill = []
    for row in range(4):
        for column in range(columns):
            block = pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            fill.append([
                (dut.write, 1), (dut.write_row, row), (dut.write_column, column),
                (dut.write_data, block.reshape(-1).tolist()),
            ])  # fmt: skip
    # The three rows and the three columns of blocks are free choices.
    choices = [(rng.permutation(4)[:3], rng.permutation(columns)[:3]) for _ in range(40)]
    reads = [[(dut.write, 0), (dut.rows, r.tolist()), (dut.columns, c.tolist())]
             for r, c in choices]  # fmt: skip
    samples = []

    async def bench(ctx):
        await play(ctx, fill, lambda ctx: None)
        samples.extend(await play(ctx, [*reads, []], lambda ctx: ctx.get(dut.window.as_value())))

    simulate(dut, bench)
    for (rows, cols), got in zip(choices, samples[1:], strict=True):
        # A window is the lower right pixels of the blocks above and left, and so on.
        y = [2 * rows[0] + 1, 2 * rows[1], 2 * rows[1] + 1, 2 * rows[2]]
        x = [2 * cols[0] + 1, 2 * cols[1], 2 * cols[1] + 1, 2 * cols[2]]
        want = WINDOW.const(pixels[np.ix_(y, x)].tolist()).as_value().value
        assert got == want


@pytest.mark.parametrize("thresholds", [False, True])
def test_weight_buffer_keeps_taps_and_parameters_of_entries(thresholds):
    rng = np.random.default_rng(2)
    depth = 16
    dut = WeightBuffer(depth=depth, thresholds=thresholds)
    taps = rng.integers(0, 1 << 16, (depth, 3, 3))
    parameters = rng.integers(-32768, 32768, (depth, 3))
    fill = [
        [
            (dut.write, 1), (dut.write_entry, entry), (dut.write_row, row),
            (dut.write_data, whole_word(taps[entry, row], parameters[entry, row])),
        ]
        for entry in range(depth)
        for row in range(3)
    ]  # fmt: skip
    order = [rng.permutation(depth).tolist() for _ in range(4)]
    entries = (dut.weight_entry, dut.scale_entry, dut.bias_entry, dut.threshold_entry)
    reads = [
        [(dut.write, 0), *zip(entries, chosen, strict=True)] for chosen in zip(*order, strict=True)
    ]
    samples = []

    def probe(ctx):
        weights = [[ctx.get(dut.weights[ky][kx]) for kx in range(3)] for ky in range(3)]
        return weights, ctx.get(dut.scale), ctx.get(dut.bias), ctx.get(dut.threshold)

    async def bench(ctx):
        await play(ctx, fill, lambda ctx: None)
        samples.extend(await play(ctx, [*reads, []], probe))

    simulate(dut, bench)
    for chosen, (weights, scale, bias, threshold) in zip(
        zip(*order, strict=True), samples[1:], strict=True
    ):
        assert weights == taps[chosen[0]].tolist()
        assert scale == parameters[chosen[1], 0]
        assert bias == parameters[chosen[2], 1]
        assert threshold == (parameters[chosen[3], 2] if thresholds else 0)


def whole_word(taps, parameter):
    """Three 16-bit taps, then a signed 16-bit parameter, lowest first."""
    fields = [*map(int, taps), int(parameter) & 0xFFFF]
    return sum(field << 16 * index for index, field in enumerate(fields))
