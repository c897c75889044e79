"""Amaranth testbenches that feed and drain streams."""

import random
import struct


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


async def send_words(ctx, port, words, *, stall=0.0, seed=0):
    """Offer 32-bit words to an input of ResultBits; the last bit of all is the frame's last."""
    bits = [word >> place & 1 for word in words for place in range(32)]
    ends = [0] * (len(bits) - 1) + [1]
    values = [{"bit": bit, "last": last} for bit, last in zip(bits, ends, strict=True)]
    await send(ctx, port, values, stall=stall, seed=seed)


async def receive_words(ctx, port, count, *, stall=0.0, seed=1):
    """Take `count` signed 32-bit words from an output of ResultBits, up to the frame's last bit."""
    values = await receive(ctx, port, 32 * count, stall=stall, seed=seed)
    assert [value.last for value in values] == [0] * (32 * count - 1) + [1]
    text = bytes(
        sum(value.bit << place for place, value in enumerate(values[at : at + 8]))
        for at in range(0, len(values), 8)
    )
    return [*struct.unpack(f"<{count}i", text)]
