"""Factors of pixels: from memory through the window to the token that they belong to."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from bnnhw.compiler.layout import pack_factors
from bnnhw.gateware.delay import Delay
from bnnhw.gateware.lane import Token
from bnnhw.gateware.operand import Factors
from tests.gateware.bench import engine_parameters, flip_at_random, simulate
from tests.gateware.windows import DEPTH, Windows, convolution

LATE = 5  # cycles from the issue to the token that the lanes take


class Bench(wiring.Component):
    """The window's walk, and its tokens as late as in the engine."""

    def __init__(self, parameters, words):
        super().__init__({"upper": In(1)})
        self.windows = Windows(parameters, words)
        self.wait = Delay(Token, LATE)
        self.factors = Factors()

    def elaborate(self, platform):
        m = Module()
        m.submodules.windows, m.submodules.wait = self.windows, self.wait
        m.submodules.factors = self.factors
        m.d.comb += [
            self.wait.i.eq(self.windows.issue.token),
            self.factors.token.eq(self.wait.o),
            self.factors.window.eq(self.windows.buffer.window),
            self.factors.load.eq(self.windows.start),
            self.factors.upper.eq(self.upper),
        ]
        return m


@pytest.mark.parametrize("minus_one", [False, True])
@pytest.mark.parametrize("folds", [1, 4])
@pytest.mark.parametrize(
    ("height", "width", "groups", "withheld"),
    [(2, 2, 1, 0.0), (2, 9, 1, 0.0), (5, 4, 2, 0.3), (9, 6, 1, 0.9)],
)
def test_each_token_has_its_position_s_factors(height, width, groups, withheld, folds, minus_one):
    rng = np.random.default_rng(height)
    maps = rng.integers(0, 256, (2, height, width))
    lower, upper = (pack_factors(factors) for factors in maps)
    words = (lower | upper << np.uint64(8)).tolist()
    parameters = engine_parameters(
        passes=True, spatial=True, minus_one=minus_one, window_depth=DEPTH
    )
    dut = Bench(parameters, [0] * 5 + words)
    geometry = convolution(height, width, folds, groups, mask=not minus_one)
    geometry |= dict(scaled=1, spatial=1)
    got = []

    async def bench(ctx):
        for upper in (0, 1):  # one step after the other
            ctx.set(dut.windows.geometry, geometry)
            ctx.set(dut.windows.base, 5)
            ctx.set(dut.upper, upper)
            ctx.set(dut.windows.start, 1)
            await ctx.tick()
            ctx.set(dut.windows.start, 0)
            left = LATE + 1
            while left:
                left -= not ctx.get(dut.windows.issue.busy)
                valid = ctx.get(dut.wait.o.valid)
                await ctx.tick()
                if valid:
                    got.append([ctx.get(dut.factors.factors[lane]) for lane in range(4)])

    simulate(dut, bench, background=[flip_at_random(dut.windows.memory.allow, low=withheld)])
    want = [
        [int(factors[y + lane // 2, x + lane % 2]) if inside(factors, y, x, lane) else None
         for lane in range(4)]
        for factors in maps
        for y in range(0, height, 2)
        for x in range(0, width, 2)
        for _ in range(16 * groups)
    ]  # fmt: skip
    assert len(got) == len(want)
    for values, expected in zip(got, want, strict=True):
        pairs = zip(values, expected, strict=True)
        assert [v if e is not None else None for v, e in pairs] == expected


def inside(factors, y, x, lane):
    return y + lane // 2 < factors.shape[0] and x + lane % 2 < factors.shape[1]
