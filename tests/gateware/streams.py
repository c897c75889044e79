"""Amaranth testbenches that feed and drain streams."""

import random


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
