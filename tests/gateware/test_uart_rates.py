"""What the receiver bears: a host whose rate is another, and edges that come early or late."""

import random

import pytest

from bnnhw.gateware.uart import Receiver
from tests.gateware.bench import simulate

COUNT = 200  # bytes


def levels(values, cycles, jitter, rng):
    """A line's level at each edge of the clock; a bit takes `cycles`, jitter is a share of that."""
    at, edges = rng.uniform(3, 4), []
    for value in values:
        for bit in (0, *(value >> place & 1 for place in range(8)), 1):
            edges.append((at + rng.choice((-jitter, 0, jitter)) * cycles, bit))
            at += cycles
        at += rng.choice([0, 0, rng.random() * cycles])
    found, level = [], 1
    for now in range(int(at + 4 * cycles)):
        while edges and edges[0][0] <= now:
            level = edges.pop(0)[1]
        found.append(level)
    return found


def heard(divisor, error, jitter):
    """Whether every byte comes through."""
    rng, got, dut = random.Random(1), [], Receiver(divisor)
    values = [*rng.randbytes(COUNT)]

    async def line(ctx):
        ctx.set(dut.o.ready, 1)
        for level in levels(values, divisor * (1 + error), jitter, rng):
            ctx.set(dut.line, level)
            _, _, valid, value = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                got.append(value)

    simulate(dut, line)
    return got == values


@pytest.mark.parametrize("error", [-0.02, 0.02])
@pytest.mark.parametrize(("divisor", "jitter"), [(8, 0.1), (6, 0.075), (5, 0.1), (4, 0.025)])
def test_two_percent_and_jitter(divisor, jitter, error):
    """docs/protocol.md has these."""
    assert heard(divisor, error, jitter)


@pytest.mark.parametrize(("divisor", "jitter"), [(8, 0.125), (6, 0.1), (5, 0.125), (4, 0.05)])
def test_more_jitter_loses_bytes_of_a_fast_host(divisor, jitter):
    assert not heard(divisor, -0.02, jitter)
