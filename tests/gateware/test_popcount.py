"""Adders and the matches of a tap, by counting."""

import itertools
import random

import pytest
from amaranth.hdl import Signal

from bnnhw.gateware.popcount import TapMatches, add, full_adder
from tests.gateware.bench import evaluate, play, simulate


@pytest.mark.parametrize("widths", [(1, 1), (2, 2), (3, 4), (4, 2)])
@pytest.mark.parametrize("with_carry", [False, True])
def test_add_is_exact_and_one_bit_wider(widths, with_carry):
    a, b, carry = Signal(widths[0]), Signal(widths[1]), Signal()
    total = add(a, b, carry) if with_carry else add(a, b)
    assert len(total) == max(widths) + 1
    operands = [*itertools.product(range(1 << widths[0]), range(1 << widths[1]), (0, 1))]
    got = evaluate(total, *([(a, x), (b, y), (carry, c)] for x, y, c in operands))
    assert got == [x + y + (c if with_carry else 0) for x, y, c in operands]


def test_full_adder_counts_three_bits():
    bits = [Signal(name=f"bit_{i}") for i in range(3)]
    rows = [*itertools.product((0, 1), repeat=3)]
    total = full_adder(*bits)
    assert len(total) == 2
    got = evaluate(total, *(list(zip(bits, row, strict=True)) for row in rows))
    assert got == [sum(row) for row in rows]


def test_tap_matches_counts_or_clears():
    rng = random.Random(3)
    operands = [(0, 0), (0xFFFF, 0xFFFF), (0xFFFF, 0), (0, 0xFFFF), (0x5555, 0xAAAA)]
    operands += [(1 << i, 0) for i in range(16)] + [(0, 0xFFFF ^ (1 << i)) for i in range(16)]
    operands += [(rng.getrandbits(16), rng.getrandbits(16)) for _ in range(300)]
    clears = [0] * 40 + [rng.random() < 0.4 for _ in operands[40:]]
    dut = TapMatches()
    samples = []

    async def bench(ctx):
        # The clear of an operand pair comes a cycle later.
        cycles = [[(dut.a, a), (dut.b, b)] for a, b in operands] + [[], []]
        for cycle, clear in zip(cycles[1:], clears, strict=False):
            cycle.append((dut.clear, clear))
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.count) + ctx.get(dut.spare)))

    simulate(dut, bench)
    expected = [
        0 if clear else 16 - (a ^ b).bit_count()
        for (a, b), clear in zip(operands, clears, strict=True)
    ]
    assert {0, 16} <= set(expected)
    assert samples[2:] == expected
