"""The sequencer on a small program, from a memory that withholds grants."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.gateware.program import Geometry, Kind, Sinks, Sources
from bnnhw.gateware.sequencer import Sequencer
from tests.gateware.bench import Memory, flip_at_random, simulate

STEPS = [  # geometry, sources, sinks, feature words that the step asks for
    (
        dict(kind=Kind.STEM, single=1, columns=3, rows=4),
        dict(weights=20, weight_words=9, features=60), dict(bits=70, residual=80), 0,
    ),
    (
        dict(kind=Kind.CONV, add=1, folds=2, groups=3),
        dict(weights=29, weight_words=3, features=70, shortcut=80), dict(bits=75, residual=81), 11,
    ),
    (
        dict(kind=Kind.CONV, emit=1),
        dict(weights=32, weight_words=6, features=75, shortcut=3), dict(bits=70), 4,
    ),
    (
        dict(kind=Kind.POINTWISE, single=1, keep=1, columns=1),
        dict(weights=35, weight_words=3, features=77), dict(residual=90, head_words=31), 0,
    ),
    (
        dict(kind=Kind.CONV, scaled=1),
        dict(weights=32, weight_words=4), dict(operand=70, rows=dict(skip_last=1)), 0,
    ),
    (
        dict(kind=Kind.CONV, scaled=1, spatial=1),
        dict(weights=34, weight_words=4, features=75),
        dict(upper=1, rows=dict(skip_first=1)), 2,
    ),
    (
        dict(kind=Kind.CONV, scaled=1, spatial=1),
        dict(weights=36, weight_words=2),
        dict(bits=5, rows=dict(skip_first=1, skip_last=1)), 0,
    ),
    (
        dict(kind=Kind.HEAD, last=1), dict(weights=38, weight_words=3, features=80),
        dict(head_words=16383), 0,
    ),
]  # fmt: skip


def encode(kind, fields):
    return kind.const(fields).as_value().value


def program_and_weights():
    words = []
    for geometry, sources, sinks, _ in STEPS:
        words += [encode(Geometry, geometry), encode(Sources, sources), encode(Sinks, sinks)]
    rng = random.Random(4)
    return words + [rng.getrandbits(64) for _ in range(100 - len(words))]


def expected_events(words):
    """One frame's, in order."""
    events = []
    for index, (geometry, sources, sinks, wanted) in enumerate(STEPS):
        kind, first = geometry["kind"], sources["weights"]
        events += [("sources", encode(Sources, sources)), ("sinks", encode(Sinks, sinks))]
        skips = sinks.get("rows", {})
        rows = range(skips.get("skip_first", 0), 3 - skips.get("skip_last", 0))
        events += [
            ("weights", word // len(rows), rows[word % len(rows)], words[first + word])
            for word in range(sources["weight_words"])
        ]
        events.append(("start", kind, encode(Geometry, geometry), sources.get("features", 0)))
        events += [("feature", words[sources["features"] + word]) for word in range(wanted)]
        events.append(("done", index, geometry.get("last", 0)))
    return events


async def cycle(ctx, dut, events):
    """One clock cycle; the events in it are appended."""
    assert not ctx.get(dut.lends & dut.fetch.request)
    for strobe, value in ((dut.load_sources, dut.sources), (dut.load_sinks, dut.sinks)):
        if ctx.get(strobe):
            events.append(("sources" if value is dut.sources else "sinks",
                           ctx.get(value.as_value())))  # fmt: skip
    if ctx.get(dut.write_weights):
        events.append(
            ("weights", ctx.get(dut.write_entry), ctx.get(dut.write_row), ctx.get(dut.fetch.data))
        )
    starts = {
        Kind.STEM: dut.start_stem, Kind.CONV: dut.start_conv, Kind.HEAD: dut.start_head,
        Kind.POINTWISE: dut.start_pointwise,
    }  # fmt: skip
    started = [kind for kind, strobe in starts.items() if ctx.get(strobe)]
    for kind in started:
        events.append(("start", kind, ctx.get(dut.geometry.as_value()), ctx.get(dut.features)))
    if ctx.get(dut.step_done):
        events.append(("done", ctx.get(dut.step), ctx.get(dut.frame_done)))
    else:
        assert not ctx.get(dut.frame_done)
    taken = ctx.get(dut.more_taken)
    await ctx.tick()
    if taken:
        events.append(("feature", ctx.get(dut.fetch.data)))
    return started, taken


@pytest.mark.parametrize("withheld", [0.0, 0.6])
def test_program_runs_step_by_step_over_and_over(withheld):
    words = program_and_weights()
    dut = Sequencer(weight_depth=16, passes=True)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(words)
    connect(m, dut.fetch, memory.fetch)
    events = []
    rng = random.Random(int(10 * withheld))

    async def bench(ctx):
        ctx.set(dut.idle, 1)
        for _ in range(20):
            assert not ctx.get(dut.fetch.request)
            await cycle(ctx, dut, events)
        assert events == []
        ctx.set(dut.run, 1)
        for step in range(2 * len(STEPS)):
            started = []
            while not started:  # the descriptor and the weights
                started, _ = await cycle(ctx, dut, events)
            ctx.set(dut.idle, 0)
            assert ctx.get(dut.lends) == (started != [Kind.CONV])
            left = STEPS[step % len(STEPS)][3]
            for _ in range(rng.randrange(1, 30)):
                await cycle(ctx, dut, events)
            while left:
                ctx.set(dut.more, rng.random() < 0.7)
                _, taken = await cycle(ctx, dut, events)
                left -= taken
            ctx.set(dut.more, 0)
            for _ in range(rng.randrange(5)):
                await cycle(ctx, dut, events)
            if step == 2 * len(STEPS) - 1:
                ctx.set(dut.run, 0)
            ctx.set(dut.idle, 1)
        for _ in range(30):  # `run` is low: the step ends, none follows
            await cycle(ctx, dut, events)

    simulate(m, bench, background=[flip_at_random(memory.allow, low=withheld)])
    assert events == expected_events(words) * 2


def test_a_stem_of_bits_is_a_convolution_and_skips_to_its_next_row():
    words = program_and_weights()
    dut = Sequencer(weight_depth=16, image_bits=True, gap=5)
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(words)
    connect(m, dut.fetch, memory.fetch)
    got = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        ctx.set(dut.run, 1)
        while not ctx.get(dut.start_conv):
            assert not ctx.get(dut.start_stem)
            await ctx.tick()
        await ctx.tick()
        assert ctx.get(dut.convolves) and not ctx.get(dut.lends)
        ctx.set(dut.more, 1)
        for index in range(9):
            ctx.set(dut.skip, index % 3 == 2)
            assert ctx.get(dut.more_taken)
            await ctx.tick()
            got.append(ctx.get(dut.fetch.data))

    simulate(m, bench)
    assert got == [words[at] for at in (60, 61, 62, 68, 69, 70, 76, 77, 78)]


def test_more_weights_than_a_descriptor_can_say_are_refused():
    with pytest.raises(ValueError, match="weight_depth=512: a step can load no more than 256"):
        Sequencer(weight_depth=512)
