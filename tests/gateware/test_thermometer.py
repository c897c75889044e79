"""The bits of a byte's thermometer, for every byte, against their definition in fractions."""

import random
from fractions import Fraction

import pytest
from amaranth.sim import Simulator

from bnnhw.gateware.thermometer import Thermometer
from tests.gateware.bench import whole


def level(index, count):
    """The byte from which bit `index` of `count` is 1."""
    exact = Fraction(256 * (index + 1), count + 1)
    return next(byte for byte in range(256) if abs(byte - exact) < Fraction(1, 2))


@pytest.mark.parametrize("count", [2, 6, 16, 18, 32, 48, 62])
def test_every_byte_in_every_group(count):
    check(Thermometer(levels=count), [level(index, count) for index in range(count)])


@pytest.mark.parametrize("count", [2, 16, 18, 34])
def test_levels_of_their_own(count):
    levels = sorted(random.Random(count).sample(range(2, 255), count - 2))
    levels = (1, *levels, 255)
    check(Thermometer(levels=count, limits=levels), levels)


def check(dut, levels):
    groups = -(-len(levels) // 16)
    rows = [(byte, group) for byte in range(256) for group in range(groups)]
    expected = [
        whole(byte >= limit for limit in levels[16 * group : 16 * group + 16])
        for byte, group in rows
    ]

    async def bench(ctx):
        for (byte, group), bits in zip(rows, expected, strict=True):
            ctx.set(dut.byte, byte)
            if groups > 1:
                ctx.set(dut.group, group)
            assert ctx.get(dut.bits) == bits, (byte, group)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
