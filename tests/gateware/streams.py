"""Amaranth testbenches that feed and drain streams, with a watchdog."""

import random

from amaranth.sim import Simulator


async def send(ctx, port, values, *, stall=0.0, seed=0):
    """Offer values to a stream input; before each, pause with probability `stall`."""
    rng = random.Random(seed)
    for value in values:
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(port.payload, value)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


async def receive(ctx, port, count, *, stall=0.0, seed=1):
    """Take `count` values from a stream output, pausing with probability `stall`."""
    rng = random.Random(seed)
    values = []
    for _ in range(count):
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(port.ready, 1)
        (value,) = await ctx.tick().sample(port.payload).until(port.valid)
        ctx.set(port.ready, 0)
        values.append(value)
    return values


def simulate(dut, *benches, background=(), cycles=100_000):
    """Run benches to their ends; fail if one is not there after `cycles` clock cycles."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    waiting = set(range(len(benches)))

    def wrap(index, bench):
        async def run(ctx):
            await bench(ctx)
            waiting.discard(index)

        return run

    for index, bench in enumerate(benches):
        simulator.add_testbench(wrap(index, bench))
    for bench in background:
        simulator.add_testbench(bench, background=True)
    simulator.run_until(1e-6 * cycles)
    assert not waiting, f"watchdog: benches {sorted(waiting)} not done after {cycles} cycles"
