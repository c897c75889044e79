"""The sequencer on a small program, from a memory that withholds grants."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from bnnhw.compiler import layout
from bnnhw.gateware.program import Geometry, Kind, Load, Sinks, Sources, Walk
from bnnhw.gateware.sequencer import Sequencer
from tests.gateware.bench import Memory, flip_at_random, simulate

STEPS = [  # geometry, sources, sinks, load, feature words that the step asks for
    # (the walks are of WALKS)
    (
        dict(kind=Kind.STEM, single=1, columns=3, rows=4),
        dict(features=60), dict(bits=70, residual=80), dict(weights=40, words=9), 0,
    ),
    (
        dict(kind=Kind.CONV, add=1, folds=2, groups=3),
        dict(features=70, shortcut=80), dict(bits=75, residual=81),
        dict(weights=49, words=3, ahead=1), 11,
    ),
    (
        dict(kind=Kind.CONV, emit=1),
        dict(features=75, shortcut=3), dict(bits=70), dict(weights=52, words=6, ahead=1), 4,
    ),
    (
        dict(kind=Kind.POINTWISE, single=1, keep=1, columns=1),
        dict(features=77), dict(residual=90, head_words=31), dict(weights=55, words=3), 0,
    ),
    (
        dict(kind=Kind.CONV, scaled=1), {}, dict(operand=70),
        dict(weights=52, words=4, rows=dict(skip_last=1)), 0,
    ),
    (
        dict(kind=Kind.CONV, scaled=1, spatial=1),
        dict(features=75), dict(upper=1),
        dict(weights=54, words=4, rows=dict(skip_first=1), ahead=1), 2,
    ),
    (
        dict(kind=Kind.CONV, scaled=1, spatial=1), {}, dict(bits=5),
        dict(weights=56, words=2, rows=dict(skip_first=1, skip_last=1), ahead=1), 0,
    ),
    (
        dict(kind=Kind.HEAD, last=1), dict(features=80), dict(head_words=16383),
        dict(weights=58, words=3), 0,
    ),
]  # fmt: skip


WALKS = [dict(position=-at, row=at - 300, entry=at) for at in range(len(STEPS))]


def on_memory(dut, words):
    """A sequencer that fetches from a memory of these words; both, and the memory alone."""
    m = Module()
    m.submodules.dut, m.submodules.memory = dut, memory = dut, Memory(words)
    connect(m, dut.fetch, memory.fetch)
    return m, memory


def encode(kind, fields):
    return kind.const(fields).as_value().value


def program_and_weights(steps=STEPS):
    """Each step's Load is in the one before, the first's before the program and in the last."""
    loads = [encode(Load, step[3]) for step in steps]
    words = [loads[0]]
    for index, (geometry, sources, sinks, _, _) in enumerate(steps):
        words += [encode(Geometry, geometry), encode(Sources, sources), encode(Sinks, sinks)]
        words += [encode(Walk, WALKS[index]), loads[(index + 1) % len(steps)]]
    rng = random.Random(4)
    return words + [rng.getrandbits(64) for _ in range(100 - len(words))]


def loaded(words, load, half):
    """What a step's Load writes, where and to which half of the buffer."""
    skips = load.get("rows", {})
    rows = range(skips.get("skip_first", 0), 3 - skips.get("skip_last", 0))
    return [
        (half, word // len(rows), rows[word % len(rows)], words[load["weights"] + word])
        for word in range(load["words"])
    ]


def expected_events(words, frames):
    """All but the weights, in order."""
    events = []
    for index, (geometry, sources, sinks, _, wanted) in enumerate(STEPS * frames):
        kind = geometry["kind"]
        events += [("sources", encode(Sources, sources)), ("sinks", encode(Sinks, sinks))]
        half = (index + 1) % 2
        events.append((
            "start", kind, encode(Geometry, geometry), sources.get("features", 0), half,
            encode(Walk, WALKS[index % len(STEPS)]), WALKS[index % len(STEPS)]["entry"],
        ))  # fmt: skip
        events += [("feature", words[sources["features"] + word]) for word in range(wanted)]
        events.append(("done", index % len(STEPS), geometry.get("last", 0)))
    return events


def expected_weights(words, frames):
    steps = [*STEPS * frames, STEPS[0]]
    return [
        write
        for index, step in enumerate(steps)
        for write in loaded(words, step[3], (index + 1) % 2)
    ]


async def cycle(ctx, dut, events, weights):
    """One clock cycle; the events in it are appended, and what is written to the weight buffer."""
    for strobe, value in ((dut.load_sources, dut.sources), (dut.load_sinks, dut.sinks)):
        if ctx.get(strobe):
            events.append(("sources" if value is dut.sources else "sinks",
                           ctx.get(value.as_value())))  # fmt: skip
    if ctx.get(dut.write_weights):
        place = ctx.get(dut.write_entry), ctx.get(dut.write_row)
        weights.append((1 - ctx.get(dut.half), *place, ctx.get(dut.fetch.data)))
    starts = {
        Kind.STEM: dut.start_stem, Kind.CONV: dut.start_conv, Kind.HEAD: dut.start_head,
        Kind.POINTWISE: dut.start_pointwise,
    }  # fmt: skip
    started = [kind for kind, strobe in starts.items() if ctx.get(strobe)]
    for kind in started:
        geometry = ctx.get(dut.geometry.as_value())
        place = ctx.get(dut.features), ctx.get(dut.half)
        walk = ctx.get(dut.walk.as_value()), ctx.get(dut.entry)
        events.append(("start", kind, geometry, *place, *walk))
    if ctx.get(dut.step_done):
        events.append(("done", ctx.get(dut.step), ctx.get(dut.frame_done)))
    else:
        assert not ctx.get(dut.frame_done)
    taken = ctx.get(dut.more_taken)
    if taken:
        events.append(["feature", 2])  # cycles until it is there
    await ctx.tick()
    for at, event in enumerate(events):
        if isinstance(event, list):
            event[1] -= 1
            if not event[1]:
                events[at] = ("feature", ctx.get(dut.fetch.data))
    return started, taken


@pytest.mark.parametrize("withheld", [0.0, 0.6])
def test_program_runs_step_by_step_over_and_over(withheld):
    """Weights of the next step are loaded while one runs that says so, others after it."""
    words = program_and_weights()
    dut = Sequencer(weight_depth=16, passes=True)
    m, memory = on_memory(dut, words)
    events, weights = [], []
    rng = random.Random(int(10 * withheld))

    async def bench(ctx):
        ctx.set(dut.idle, 1)
        for _ in range(20):
            assert not ctx.get(dut.fetch.request) and not ctx.get(dut.ready)
            await cycle(ctx, dut, events, weights)
        assert events == []
        ctx.set(dut.run, 1)
        for step in range(2 * len(STEPS)):
            started = []
            while not started:  # the descriptor and the weights
                started, _ = await cycle(ctx, dut, events, weights)
            ctx.set(dut.idle, 0)
            known = len(weights)
            _, _, _, _, left = STEPS[step % len(STEPS)]
            ahead = STEPS[(step + 1) % len(STEPS)][3].get("ahead", 0)
            for _ in range(rng.randrange(1, 30)):
                await cycle(ctx, dut, events, weights)
            while left:
                ctx.set(dut.more, rng.random() < 0.7)
                _, taken = await cycle(ctx, dut, events, weights)
                left -= taken
            ctx.set(dut.more, 0)
            for _ in range(60 if step % 3 else rng.randrange(2, 6)):
                await cycle(ctx, dut, events, weights)
            assert ahead or len(weights) == known
            if ahead and step % 3:
                assert weights == expected_weights(words, 2)[: len(weights)]
                assert len(weights) - known == STEPS[(step + 1) % len(STEPS)][3]["words"]
            if step == 2 * len(STEPS) - 1:
                ctx.set(dut.run, 0)
            ctx.set(dut.idle, 1)
        for _ in range(60):  # `run` is low: the step ends, none follows
            await cycle(ctx, dut, events, weights)

    simulate(m, bench, background=[flip_at_random(memory.allow, low=withheld)])
    assert events == expected_events(words, 2)
    assert weights == expected_weights(words, 2)


def test_a_stem_of_bits_is_a_convolution_and_skips_to_its_next_row():
    words = program_and_weights()
    dut = Sequencer(weight_depth=16, image_bits=True, gap=5)
    m, memory = on_memory(dut, words)
    got = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        ctx.set(dut.run, 1)
        while not ctx.get(dut.start_conv):
            assert not ctx.get(dut.start_stem)
            await ctx.tick()
        await ctx.tick()
        assert ctx.get(dut.convolves)
        ctx.set(dut.more, 1)
        for index in range(10):
            ctx.set(dut.skip, index % 3 == 2)
            assert ctx.get(dut.more_taken)
            await ctx.tick()
            if index:
                got.append(ctx.get(dut.fetch.data))

    simulate(m, bench)
    assert got == [words[at] for at in (60, 61, 62, 68, 69, 70, 76, 77, 78)]


def test_first_entries_of_channels_have_a_word_of_slopes():
    """Two steps, of two folds and of one, so that nothing of one is left for the other."""
    steps = [
        (dict(kind=Kind.CONV), {}, {}, dict(weights=20, words=10, folds=1), 0),
        (dict(kind=Kind.CONV, last=1), {}, {}, dict(weights=21, words=8), 0),
    ]
    words = program_and_weights(steps)
    dut = Sequencer(weight_depth=16, slopes=True)
    m, memory = on_memory(dut, words)
    weights = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        ctx.set(dut.run, 1)
        ctx.set(dut.idle, 1)
        while len(weights) < 2 * (10 + 8):
            assert ctx.get(dut.ready)  # frames may come at once, as weights do each step
            await cycle(ctx, dut, [], weights)

    simulate(m, bench)
    rows = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    single = [(entry, row) for entry in (0, 1) for row in range(4)]
    want = [(*place, words[20 + at]) for at, place in enumerate(rows)]
    want += [(*place, words[21 + at]) for at, place in enumerate(single)]
    assert [write[1:] for write in weights] == want * 2


@pytest.mark.parametrize("first_only", [0, 1])
@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("pe", [1, 2, 4, 8])
def test_channels_in_parallel_have_their_words_one_after_the_other(pe, slopes, first_only):
    """As in_parallel, add_slopes and head_entries have them, two entries of two folds."""
    folds, channels = 2, 2 * pe
    taps = np.arange(channels * folds)[:, None] + np.zeros(9, int)
    table = np.zeros((channels * folds, 3), int)
    ordered = layout.in_parallel(taps, folds, pe), layout.in_parallel(table, folds, pe)
    contents = layout.pack_entries(*ordered)
    if slopes:
        contents = layout.add_slopes(contents, np.full((channels, 4), 999), folds, pe)
    if first_only and pe > 1:  # a head's, without slopes
        contents = layout.pack_entries(*ordered)[::3]
    load = dict(weights=60, words=len(contents), folds=folds - 1)
    load["rows"] = dict(first_only=first_only)
    steps = [(dict(kind=Kind.CONV, last=1), {}, {}, load, 0)]
    words = [*program_and_weights(steps)[:60], *map(int, contents)]
    dut = Sequencer(weight_depth=16, slopes=slopes, pe=pe)
    m, memory = on_memory(dut, words)
    got = []

    async def bench(ctx):
        ctx.set(memory.allow, 1)
        ctx.set(dut.run, 1)
        while not ctx.get(dut.start_conv):
            if ctx.get(dut.write_weights):
                place = ctx.get(dut.write_channel), ctx.get(dut.write_entry), ctx.get(dut.write_row)
                got.append((*place, ctx.get(dut.fetch.data)))
            await ctx.tick()

    simulate(m, bench)
    want = []
    for entry in range(2 * folds):
        for channel in range(pe):
            number = (entry // folds * pe + channel) * folds + entry % folds
            rows = [number * 0x0001_0001_0001] * 3
            if slopes and entry % folds == 0:
                rows.append(999 * 0x0001_0001_0001_0001)
            if first_only and pe > 1:
                rows = rows[:1]
            want += [(channel, entry, row, word) for row, word in enumerate(rows)]
    assert got == want


@pytest.mark.parametrize("withheld", [0.0, 0.6])
@pytest.mark.parametrize("pe", [1, 4])
def test_resident_weights_are_loaded_in_a_round_before_the_first_frame(pe, withheld):
    """No step starts in it; then frames follow which load nothing, with the entries of each."""
    count, sizes, entries = 3, (4, 2, 3), (0, 4, 6)
    steps, at = [], 50
    for index in range(count):
        load = dict(weights=at, words=3 * pe * sizes[index], entry=entries[index], ahead=index % 2)
        at += load["words"]
        steps.append((dict(kind=Kind.CONV, last=index == count - 1), {}, {}, load, 0))
    words = program_and_weights(steps)
    words += list(range(1000, 1000 + at - len(words)))
    dut = Sequencer(weight_depth=16, pe=pe, resident=True)
    m, memory = on_memory(dut, words)
    weights, started = [], []

    async def bench(ctx):
        ctx.set(dut.run, 1)
        ctx.set(dut.idle, 1)
        while len(started) < 3 * count:
            if ctx.get(dut.write_weights):
                assert not started and not ctx.get(dut.ready)
                place = ctx.get(dut.write_channel), ctx.get(dut.write_entry), ctx.get(dut.write_row)
                weights.append((*place, ctx.get(dut.fetch.data)))
            assert ctx.get(dut.half) == 0
            if ctx.get(dut.start_conv):
                assert ctx.get(dut.ready)
                started.append((ctx.get(dut.step), ctx.get(dut.entry)))
            elif not ctx.get(dut.ready):
                assert not (ctx.get(dut.step_done) or ctx.get(dut.frame_done))
            await ctx.tick()

    simulate(m, bench, background=[flip_at_random(memory.allow, low=withheld)])
    assert weights == [
        (channel, first + entry, row, words[load["weights"] + 3 * (pe * entry + channel) + row])
        for at in (*range(count), 0)  # the last step says the first's once more
        for load, first, size in [(steps[at][3], entries[at], sizes[at])]
        for entry in range(size)
        for channel in range(pe)
        for row in range(3)
    ]
    assert started == [(step, step) for step in range(count)] * 3


def test_more_weights_than_a_descriptor_can_say_are_refused():
    Sequencer(weight_depth=2048, pe=8)  # 3 * 2048 * 8 = 49152 words
    with pytest.raises(
        ValueError, match="weight_depth=4096: a step can load no more than 65535 words"
    ):
        Sequencer(weight_depth=4096, pe=8)


@pytest.mark.parametrize("pause", [0, 40])
def test_descriptors_and_weights_come_from_a_stream(pause):
    """Round after round; the last step starts once all of the stream is right. Of two folds the
    second one's words are short."""
    count, sizes, folds = 3, (4, 2, 6), (2, 1, 2)
    loads = [dict(words=3 * sizes[at], folds=folds[at] - 1, ahead=at % 2) for at in range(count)]
    geometries = [dict(kind=Kind.CONV, last=at == count - 1) for at in range(count)]
    stream = [(encode(Load, loads[0]), False)]
    for at in range(count):
        weights = [1000 * at + word for word in range(loads[at]["words"])]
        stream += [(word, index // 3 % folds[at] > 0) for index, word in enumerate(weights)]
        words = [encode(Geometry, geometries[at]), encode(Sources, {}), encode(Sinks, {}), 0]
        following = loads[at + 1] if at + 1 < count else dict(words=9999)
        stream += [(word, False) for word in (*words, encode(Load, following))]
    dut = Sequencer(weight_depth=32, streams=True)
    weights, started, rounds = [], [], []

    async def source(ctx):
        """A word takes 16 cycles, or 12; the next may be granted as it ends."""
        given, left = 0, 0
        while True:
            ctx.set(dut.words.grant, left == 0 and given < len(stream))
            ctx.set(dut.words.checked, left == 0 and given == len(stream) and waited[0] > pause)
            tick = ctx.tick().sample(
                dut.words.request & dut.words.grant, dut.words.short, dut.words.restart
            )
            _, _, granted, short, restart = await tick
            ctx.set(dut.words.valid, 0)
            waited[0] = waited[0] + 1 if given == len(stream) and not left else 0
            if restart:
                rounds.append(len(started))
                given = 0
            if granted:
                left, given = 16, given + 1
            elif left:
                left -= 1
                word, is_short = stream[given - 1]
                if left == 4:
                    assert short == is_short
                    left = 0 if is_short else left
                if not left:
                    ctx.set(dut.words.valid, 1)
                    ctx.set(dut.words.data, word)

    waited = [0]

    async def bench(ctx):
        ctx.set(dut.run, 1)
        ctx.set(dut.idle, 1)
        while len(started) < 2 * count:
            if ctx.get(dut.write_weights):
                place = 1 - ctx.get(dut.half), ctx.get(dut.write_entry), ctx.get(dut.write_row)
                weights.append((*place, ctx.get(dut.words.data)))
            if ctx.get(dut.start_conv):
                started.append((ctx.get(dut.step), ctx.get(dut.half)))
            assert not ctx.get(dut.fetch.request)
            await ctx.tick()

    simulate(dut, bench, background=[source])
    assert started == [(at % count, (at + 1) % 2) for at in range(2 * count)]
    assert rounds == [count - 1, 2 * count - 1]  # before the last step of each
    order = [*range(count), *range(count)]
    want = [
        ((index + 1) % 2, word // 3, word % 3, 1000 * at + word)
        for index, at in enumerate(order)
        for word in range(loads[at]["words"])
    ]
    assert weights[: len(want)] == want
