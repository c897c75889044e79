"""Window buffer and weight buffer alone: what was written is read from wherever it is asked for."""

import numpy as np
import pytest

from bnnhw.gateware.array import WINDOW
from bnnhw.gateware.buffers import WeightBuffer, WindowBuffer
from tests.gateware.bench import engine_parameters, play, simulate


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
@pytest.mark.parametrize("slopes", [False, True])
def test_weight_buffer_keeps_taps_and_parameters_of_entries(thresholds, slopes):
    rng = np.random.default_rng(2)
    depth = 16
    settings = dict(activation=True, positive=True, shift_out=True) if slopes else {}
    parameters = engine_parameters(weight_depth=depth, thresholds=thresholds, **settings)
    dut = WeightBuffer(parameters)
    taps = rng.integers(0, 1 << 16, (depth, 3, 3))
    parameters = rng.integers(-32768, 32768, (depth, 6))
    fill = [
        [
            (dut.write, 1), (dut.write_entry, entry), (dut.write_row, row),
            (dut.write_data, word),
        ]
        for entry in range(depth)
        for row, word in enumerate([
            *(whole_word(taps[entry, row], parameters[entry, row]) for row in range(3)),
            *[whole_word([*parameters[entry, 3:]], 99)] * slopes,
        ])
    ]  # fmt: skip
    addresses = [dut.weight_entry, dut.scale_entry, dut.bias_entry, dut.threshold_entry]
    addresses += [dut.slope_entry, dut.last_entry]
    order = [rng.permutation(depth).tolist() for _ in addresses]
    reads = [
        [(dut.write, 0), *zip(addresses, chosen, strict=True)]
        for chosen in zip(*order, strict=True)
    ]
    reads[0].append((dut.half, 1))  # what was written is read once the halves change places
    outputs = (dut.scale, dut.bias, dut.threshold, dut.above, dut.below, dut.shift_out)
    samples = []

    def probe(ctx):
        weights = [[ctx.get(dut.weights[ky][kx]) for kx in range(3)] for ky in range(3)]
        return weights, [ctx.get(signal) for signal in outputs]

    async def bench(ctx):
        await play(ctx, fill, lambda ctx: None)
        samples.extend(await play(ctx, [*reads, []], probe))

    simulate(dut, bench)
    there = [True, True, thresholds, slopes, slopes, slopes]
    for chosen, (weights, got) in zip(zip(*order, strict=True), samples[1:], strict=True):
        assert weights == taps[chosen[0]].tolist()
        entries = [*chosen[1:5], chosen[4], chosen[5]]  # both slopes are at one address
        want = [parameters[at, column] for column, at in enumerate(entries)]
        assert got == [value if use else 0 for value, use in zip(want, there, strict=True)]


def whole_word(taps, parameter):
    """Three 16-bit taps, then a signed 16-bit parameter, lowest first."""
    fields = [int(field) & 0xFFFF for field in (*taps, parameter)]
    return sum(field << 16 * index for index, field in enumerate(fields))


def test_a_half_of_the_weight_buffer_is_written_while_the_other_is_read():
    rng = np.random.default_rng(3)
    depth = 16
    dut = WeightBuffer(engine_parameters(weight_depth=depth))
    taps = rng.integers(0, 1 << 16, (6, depth // 2))
    cycles, samples = [], []
    for step, values in enumerate(taps):
        for entry, value in enumerate(values):
            cycles.append([
                (dut.half, step % 2), (dut.write, 1), (dut.write_entry, entry),
                (dut.write_row, 0), (dut.write_data, int(value)), (dut.weight_entry, entry),
            ])  # fmt: skip

    async def bench(ctx):
        probe = dut.weights[0][0]
        samples.extend(await play(ctx, [*cycles, []], lambda ctx: ctx.get(probe)))

    simulate(dut, bench)
    assert samples[1 + depth // 2 :] == taps[:-1].reshape(-1).tolist()
