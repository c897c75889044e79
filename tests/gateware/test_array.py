"""Processing elements against dot products of +1 and -1 in numpy."""

import itertools

import numpy as np
import pytest

from bnnhw.gateware.array import Array, Dot
from tests.gateware.bench import engine_parameters, play, simulate, whole

# Rows of a window outside the map, the first's bit lowest: none, the one above, the one below an
# even map, both of these, those of a block of which an odd map's last row is the upper half.
SIDES = ([0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 1, 1])


def packed(bits):
    """(rows, columns, 16) of 0 and 1 to nested lists of 16-bit numbers."""
    return [[whole(tap) for tap in row] for row in bits]


def half_dot(a, b, inside):
    """Half of sum x * w over the taps (3, 3) inside, from bits (3, 3, 16)."""
    products = (2 * a.astype(int) - 1) * (2 * b.astype(int) - 1) * inside[..., None]
    assert products.sum() % 2 == 0
    return int(products.sum()) // 2


def test_dot_is_half_the_dot_product_of_the_taps_left():
    rng = np.random.default_rng(0)
    sides = (None, 0, 2)
    cases = [  # row and column of taps to clear
        (*sides_, kind)
        for kind in ("same", "opposite", "random", "random", "random")
        for sides_ in itertools.product(sides, sides)
    ]
    dut = Dot()
    cycles = [[] for _ in range(len(cases) + 4)]
    expected = []
    for at, (row, column, kind) in enumerate(cases):
        a, b = rng.integers(0, 2, (2, 3, 3, 16))
        if kind != "random":
            b = a ^ (kind == "opposite")
        clear = np.zeros((3, 3), int)
        if row is not None:
            clear[row] = 1
        if column is not None:
            clear[:, column] = 1
        cycles[at] += [(dut.pixels, packed(a)), (dut.weights, packed(b))]
        cycles[at + 1] += [(dut.clear, clear.tolist())]
        cycles[at + 2] += [
            (dut.short_rows, row is not None),
            (dut.short_columns, column is not None),
        ]
        expected.append(half_dot(a, b, 1 - clear))
    samples = []

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.sum)))

    simulate(dut, bench)
    assert (min(expected), max(expected)) == (-72, 72)
    assert samples[4:] == expected


@pytest.mark.parametrize("pe", [1, 2, 4, 8])
@pytest.mark.parametrize("folds", [1, 2, 3])
def test_array_accumulates_folds_of_every_border(folds, pe):
    """Channels follow each other without a gap, each with its window, weights and border; those in
    parallel have weights of their own."""
    rng = np.random.default_rng(folds)
    dut = Array(acc_width=(72 * folds).bit_length() + 1, pe=pe)
    latency = engine_parameters(pe=pe).array_latency
    borders = [*itertools.product(SIDES, SIDES), (SIDES[0], SIDES[0])]
    cycles, expected = [], []
    for number, (rows, columns) in enumerate(borders):
        outside = {"rows": whole(rows), "columns": whole(columns)}
        acc = np.zeros((pe, 4), int)
        for fold in range(folds):
            window = rng.integers(0, 2, (4, 4, 16))
            weights = rng.integers(0, 2, (pe, 3, 3, 16))
            if number in (0, len(borders) - 1):  # all match, none does
                window[:], weights[:] = 1, number == 0
            inside = np.outer(1 - np.array(rows), 1 - np.array(columns))
            for channel, lane in np.ndindex(pe, 4):
                at = np.s_[lane // 2 : lane // 2 + 3, lane % 2 : lane % 2 + 3]
                acc[channel, lane] += half_dot(window[at], weights[channel], inside[at])
            cycles.append([
                (dut.window, packed(window)), (dut.weights, [packed(each) for each in weights]),
                (dut.outside, outside), (dut.first, fold == 0),
            ])  # fmt: skip
        # Lanes of which the centre is outside have no result.
        present = [not rows[1 + lane // 2] and not columns[1 + lane % 2] for lane in range(4)]
        present *= pe
        expected.append([int(v) if p else None for v, p in zip(acc.flat, present, strict=True)])
    samples = []

    async def bench(ctx):
        probe = [dut.acc[channel][lane] for channel in range(pe) for lane in range(4)]
        padded = cycles + [[] for _ in range(latency)]
        samples.extend(await play(ctx, padded, lambda ctx: [ctx.get(acc) for acc in probe]))

    simulate(dut, bench)
    assert expected[0] == [72 * folds] * 4 * pe and expected[-1] == [-72 * folds] * 4 * pe
    ends = samples[latency + folds - 1 :: folds]
    for got, want, border in zip(ends, expected, borders, strict=True):
        assert [v if w is not None else None for v, w in zip(got, want, strict=True)] == want, (
            border
        )


def test_array_can_count_the_centre_of_the_first_pixel_alone():
    rng = np.random.default_rng(4)
    dut = Array(acc_width=8)
    around = {"rows": 0b1101, "columns": 0b1101, "centre": 1}
    cycles, expected = [[] for _ in range(25)], []
    for at in range(20):
        window, weights = rng.integers(0, 2, (4, 4, 16)), rng.integers(0, 2, (3, 3, 16))
        centre = at != 10
        cycles[at] = [
            (dut.window, packed(window)), (dut.weights, [packed(weights)]), (dut.first, 1),
            (dut.outside, around if centre else {"rows": 0, "columns": 0, "centre": 0}),
        ]  # fmt: skip
        inside = np.ones((3, 3), int)
        if centre:
            inside = np.outer([0, 1, 0], [0, 1, 0])
        expected.append(half_dot(window[:3, :3], weights, inside))
    samples = []

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.acc[0][0])))

    simulate(dut, bench)
    assert samples[5:] == expected
