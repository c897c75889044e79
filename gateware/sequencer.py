"""Runs the program: fetches steps' descriptors and weights, starts their units, waits for them."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.memory import FetchRequest, WordSource
from bnnhw.gateware.parameters import ADDRESS_WIDTH
from bnnhw.gateware.program import (
    DESCRIPTOR_WORDS,
    LOAD_WIDTH,
    Geometry,
    Kind,
    Load,
    Sinks,
    Sources,
    Walk,
)

WORDS_GEOMETRY, WORDS_SOURCES, WORDS_SINKS, WORDS_WALK, WORDS_LOAD = range(DESCRIPTOR_WORDS)


HANDED = 2  # cycles in which a word is handed on to many buffers


class WeightLoader(wiring.Component):
    """Fetches a step's weights, as its Load says, and writes them to the weight buffer.

    `start` takes `load`; while `allowed` words are asked for. `done` is high once all are
    written, with many buffers HANDED cycles later, and before the first start. An entry has the
    rows of its first channel, then the next one's, `pe` in all. With `slopes` those of the
    first of each `folds` + 1 entries have four rows.

    Members
    -------
    start : In(1)                       strobe: `load` is taken
    load : In(Load)                     with `start`
    allowed : In(1)                     words may be asked for
    done : Out(1)                       all are written
    fetch : Out(FetchRequest)           reads the words
    write : Out(1)                      `fetch.data` is a word in this cycle
    entry, row : Out(entry), Out(2)     where it is written to; with `write`
    channel : Out(range(pe))            whose; with `write`

    Entries are written from 0, or, if all are `resident`, from the load's `entry` on.
    With `streams` words come in their order when they come: `arrives` marks one, in place of a
    time after its grant, and the address means nothing. Of the first of each `folds` + 1 entries
    words are whole; the word on its way is `short` if it is of another.
    """

    def __init__(
        self, *, weight_depth: int, passes: bool = False, slopes: bool = False, pe: int = 1,
        resident: bool = False, streams: bool = False,
    ) -> None:  # fmt: skip
        self._most = (3 + slopes) * weight_depth * pe
        if self._most >= 1 << LOAD_WIDTH:
            most = (1 << LOAD_WIDTH) - 1
            raise ValueError(
                f"weight_depth={weight_depth}: a step can load no more than {most} words"
            )
        self._passes, self._slopes, self._pe, self._resident = passes, slopes, pe, resident
        self._streams = streams
        super().__init__(
            ({"arrives": In(1), "short": Out(1)} if streams else {})
            | {
                "start": In(1),
                "load": In(Load),
                "allowed": In(1),
                "done": Out(1),
                "fetch": Out(FetchRequest()),
                "write": Out(1),
                "entry": Out(unsigned(exact_log2(weight_depth))),
                "row": Out(2),
                "channel": Out(range(pe)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left, wanted = Signal(range(self._most + 1)), Signal()  # wanted: left is not 0
        asked, taken = Signal(), Signal()
        handed = Signal(HANDED)  # words on their way to the buffers
        m.d.comb += [
            self.fetch.request.eq(wanted & self.allowed),
            taken.eq(self.fetch.request & self.fetch.grant),
        ]
        if self._streams:
            coming = Signal(2)  # the next may be granted before one is there
            m.d.comb += [self.write.eq(self.arrives), self.done.eq(~wanted & (coming == 0))]
            m.d.sync += coming.eq(coming + taken - self.arrives)
        else:
            m.d.comb += self.done.eq(~wanted & ~asked & ~self.write & (handed == 0))
            m.d.sync += handed.eq(Cat(self.write, handed) if self._pe > 1 else 0)
            m.d.sync += [asked.eq(taken), self.write.eq(asked)]
        with m.If(taken):
            m.d.sync += [self.fetch.address.eq(self.fetch.address + 1), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += wanted.eq(0)
        self._rows(m)
        with m.If(self.start):
            m.d.sync += [
                self.fetch.address.eq(self.load.weights),
                left.eq(self.load.words),
                wanted.eq(1),
            ]
        return m

    def _rows(self, m: Module) -> None:
        """Where the word that arrives is written."""
        first: Any = 0
        last: Any = 2
        channel_end = self.channel == self._pe - 1
        rows = Signal.like(self.load.rows)
        if self._passes or self._pe > 1:
            with m.If(self.start):
                m.d.sync += rows.eq(self.load.rows)
        if self._passes:
            first, last = rows.skip_first, Mux(rows.skip_last, 1, 2)
        counts = self._slopes or self._streams
        if counts:
            fold, folds = Signal(4), Signal(4)
        if self._slopes:
            last = Mux(fold == 0, 3, 2)
        if self._streams:
            m.d.comb += self.short.eq(fold != 0)
        if self._pe > 1:
            last = Mux(rows.first_only, 0, last)
        with m.If(self.write):
            m.d.sync += self.row.eq(self.row + 1)
            with m.If(self.row == last):
                m.d.sync += [self.row.eq(first), self.channel.eq(self.channel + 1)]
            with m.If((self.row == last) & channel_end):
                m.d.sync += self.entry.eq(self.entry + 1)
                if counts:
                    m.d.sync += fold.eq(Mux(fold == folds, 0, fold + 1))
        with m.If(self.start):
            m.d.sync += self.entry.eq(self.load.entry if self._resident else 0)
            m.d.sync += self.row.eq(self.load.rows.skip_first)
            m.d.sync += self.channel.eq(0)
            if counts:
                m.d.sync += [fold.eq(0), folds.eq(self.load.folds)]


class Sequencer(wiring.Component):
    """Steps through the program while `run` is high, over and over: one round a frame.

    `load_sources`, with the descriptor's second word in `sources`, and `load_sinks`, with `sinks`,
    are strobes for the units' address counters. A `start_*` strobe follows. The step ends when
    `idle`; `step_done` marks a cycle in which all that it wrote is in memory, `frame_done` its
    frame's last.

    The fetch port reads the descriptor and, while a convolution runs, its features, of which the
    window loader asks `more`; `more_taken` is its grant. After a word given with `skip`, `gap`
    words are left out. In other cycles it reads the next step's weights, which go to the half of
    the weight buffer that is not `half`. While the multipliers run no feature is asked for. With
    `image_bits` the stem is a convolution. `slopes`, `passes`, `pe`: as
    WeightLoader. Where all weights are `resident` a round without a frame loads them.

    With `streams` descriptors and weights are words of a stream, a round of it a frame: the first
    step's Load, its weights, its descriptor, the second step's weights, and so on. A step that ends
    the frame starts when the whole stream has been read and is right. Then its Load means nothing,
    and the stream goes on with the first one's.

    Members
    -------
    run : In(1)                         the program is in memory; stays high
    idle : In(1)                        nothing of the step is on its way
    geometry : Out(Geometry)            descriptor word 0; from START to the step's end
    sources, sinks : Out(Sources), Out(Sinks)    words 1 and 2; with their strobes alone
    features : Out(15)                  word address of the map that is read
    load_sources, load_sinks : Out(1)   strobes
    start_stem, start_conv, start_head, start_pointwise : Out(1)    strobes
    step : Out(8)                       number of the step
    convolves : Out(1)                  the step is a convolution
    step_done, frame_done : Out(1)      strobes
    fetch : Out(FetchRequest)           reads program, weights and features
    more : In(1)                        a feature word is wanted
    more_taken : Out(1)                 it is granted; combinational
    skip : In(1)                        `gap` words are left out after this one; with `more`
    write_weights : Out(1)              `fetch.data` goes to the weight buffer in this cycle
    write_entry, write_row, write_channel : Out    where to; with `write_weights`
    half : Out(1)                       of the weight buffer, which the step reads
    ready : Out(1)                      frames may come; stays high
    walk : Out(Walk)                    descriptor word 3; from START to the step's end
    entry : Out(entry)                  of it
    words : Out(WordSource)             of the stream, in place of program and weights in memory
    """

    def __init__(
        self, *, weight_depth: int, passes: bool = False, slopes: bool = False, pe: int = 1,
        resident: bool = False, image_bits: bool = False, gap: int = 0, streams: bool = False,
    ) -> None:  # fmt: skip
        self._loader = WeightLoader(
            weight_depth=weight_depth, passes=passes, slopes=slopes, pe=pe, resident=resident,
            streams=streams,
        )  # fmt: skip
        self._image_bits, self._gap, self._resident = image_bits, gap, resident
        self._streams = streams
        super().__init__(
            ({"words": Out(WordSource())} if streams else {})
            | {
                "run": In(1),
                "idle": In(1),
                "geometry": Out(Geometry),
                "sources": Out(Sources),
                "sinks": Out(Sinks),
                "features": Out(unsigned(ADDRESS_WIDTH)),
                "load_sources": Out(1),
                "load_sinks": Out(1),
                "start_stem": Out(1),
                "start_conv": Out(1),
                "start_head": Out(1),
                "start_pointwise": Out(1),
                "step": Out(8),
                "convolves": Out(1),
                "step_done": Out(1),
                "frame_done": Out(1),
                "fetch": Out(FetchRequest()),
                "more": In(1),
                "more_taken": Out(1),
                "skip": In(1),
                "half": Out(1),
                "ready": Out(1),
                "walk": Out(Walk),
                "entry": Out(self._loader.entry.shape()),
                "write_weights": Out(1),
                "write_entry": Out(self._loader.entry.shape()),
                "write_row": Out(2),
                "write_channel": Out(self._loader.channel.shape()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.loader = loader = self._loader
        address, program = Signal(ADDRESS_WIDTH), Signal(ADDRESS_WIDTH, init=1)
        own, taken, asked, arrived = (Signal() for _ in range(4))
        words = self.fetch.data
        if self._streams:
            words = self.words.data
            m.d.comb += [self.fetch.request.eq(own), self.fetch.address.eq(address)]
            self._connect(m, loader)
        else:
            m.d.comb += [
                self.fetch.request.eq(own | loader.fetch.request),
                self.fetch.address.eq(Mux(own, address, loader.fetch.address)),
                loader.fetch.grant.eq(self.fetch.grant & ~own),
            ]
        m.d.comb += [
            taken.eq(own & self.fetch.grant),
            self.sources.eq(words),
            self.sinks.eq(words),
            self.entry.eq(self.walk.entry),
            loader.load.eq(words),
            self.write_weights.eq(loader.write),
            self.write_entry.eq(loader.entry),
            self.write_row.eq(loader.row),
            self.write_channel.eq(loader.channel),
        ]
        with m.If(taken):
            step = Mux(self.skip, self._gap + 1, 1) if self._gap else 1
            m.d.sync += address.eq(address + step)
        if not self._streams:
            m.d.sync += [asked.eq(taken), arrived.eq(asked)]

        # Words of a descriptor that are to be fetched, and the place of the next to arrive.
        left, word = Signal(range(DESCRIPTOR_WORDS + 1)), Signal(range(DESCRIPTOR_WORDS))
        booted, quiet, ahead = Signal(), Signal(), Signal()
        primed = booted
        if self._resident:
            primed = Signal()
        m.d.comb += self.ready.eq(primed if self._resident else self.run)
        last_step = self.geometry.last
        again = Signal() if self._streams else None  # the stream's first Load follows
        kind, stem = self.geometry.kind, self.geometry.kind == Kind.STEM
        m.d.comb += self.convolves.eq((kind == Kind.CONV) | (stem & self._image_bits))
        with m.FSM():
            with m.State("IDLE"):
                with m.If(booted):
                    m.d.sync += [address.eq(program), left.eq(DESCRIPTOR_WORDS), word.eq(0)]
                with m.Else():
                    m.d.sync += [address.eq(0), left.eq(1), word.eq(WORDS_LOAD)]
                with m.If(self.run):
                    m.next = "DESCRIPTOR"
            with m.State("DESCRIPTOR"):
                if again is None:
                    m.d.comb += own.eq(left != 0)
                else:
                    granted = self._from_stream(m, loader, left, arrived)
                with m.If(taken if again is None else granted):
                    m.d.sync += left.eq(left - 1)
                with m.If(arrived):
                    self._descriptor(m, loader, word, words, ahead, primed, again)
                    with m.If(word == WORDS_LOAD):
                        m.next = "START"
                        with m.If(~primed):
                            m.next = "WEIGHTS"
                        if again is not None:
                            with m.If(last_step & ~again):
                                m.next = "CHECK"
            if again is not None:
                with m.State("CHECK"):  # all of the stream is right, or this step never starts
                    m.d.comb += self.words.restart.eq(self.words.checked)
                    m.d.sync += [left.eq(1), word.eq(WORDS_LOAD), again.eq(1)]
                    with m.If(self.words.checked):
                        m.next = "DESCRIPTOR"
            with m.State("START"):
                m.d.comb += [
                    self.start_stem.eq(stem & ~self.convolves),
                    self.start_conv.eq(self.convolves),
                    self.start_head.eq(kind == Kind.HEAD),
                    self.start_pointwise.eq(kind == Kind.POINTWISE),
                ]
                m.d.sync += address.eq(self.features)
                if again is not None:
                    m.d.sync += again.eq(0)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [
                    own.eq(self.more),
                    self.more_taken.eq(taken),
                    loader.allowed.eq(ahead),
                ]
                # What was granted last is in the memory a cycle later.
                m.d.sync += quiet.eq(self.idle & ~quiet)
                with m.If(quiet):
                    m.d.comb += [self.step_done.eq(1), self.frame_done.eq(last_step)]
                    self._advance(m, program)
                    m.next = "WEIGHTS"
            with m.State("WEIGHTS"):
                m.d.comb += loader.allowed.eq(1)
                with m.If(loader.done):
                    m.d.sync += [booted.eq(1), self.half.eq(~self.half & (not self._resident))]
                    if self._resident:
                        with m.If(booted & ~primed):
                            self._advance(m, program)
                            m.d.sync += primed.eq(last_step)
                    m.next = "IDLE"
        return m

    def _advance(self, m: Module, program: Signal) -> None:
        """On to the next step's descriptor, after the last one's to the first's."""
        m.d.sync += [program.eq(program + DESCRIPTOR_WORDS), self.step.eq(self.step + 1)]
        with m.If(self.geometry.last):
            m.d.sync += [program.eq(1), self.step.eq(0)]

    def _connect(self, m: Module, loader: WeightLoader) -> None:
        """Weights come from the stream in states that no descriptor is read in."""
        words = self.words
        m.d.comb += [
            words.request.eq(loader.fetch.request),
            loader.fetch.grant.eq(words.grant),
            loader.arrives.eq(words.valid),
            words.short.eq(loader.short),
        ]

    def _from_stream(self, m: Module, loader: WeightLoader, left: Value, arrived: Signal) -> Value:
        """Descriptors come from the stream, in whole words. Returns whether one is granted."""
        words = self.words
        m.d.comb += [
            words.request.eq(left != 0),
            loader.fetch.grant.eq(0),
            loader.arrives.eq(0),
            words.short.eq(0),
            arrived.eq(words.valid),
        ]
        return words.request & words.grant

    def _descriptor(
        self, m: Module, loader: WeightLoader, word: Signal, words: Value, ahead: Signal,
        primed: Signal, again: Signal | None,
    ) -> None:  # fmt: skip
        """Takes the word that arrives. That of the last step's has no Load, but `again` has."""
        loads = (~primed if self._resident else 1) if again is None else ~self.geometry.last | again
        m.d.sync += word.eq(word + 1)
        with m.Switch(word):
            with m.Case(WORDS_GEOMETRY):
                m.d.sync += self.geometry.eq(words)
            with m.Case(WORDS_SOURCES):
                m.d.comb += self.load_sources.eq(1)
                m.d.sync += self.features.eq(self.sources.features)
            with m.Case(WORDS_SINKS):
                m.d.comb += self.load_sinks.eq(1)
            with m.Case(WORDS_WALK):
                m.d.sync += self.walk.eq(words)
            with m.Case(WORDS_LOAD):
                m.d.comb += loader.start.eq(loads)
                m.d.sync += ahead.eq(loader.load.ahead)
