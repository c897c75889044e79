"""Runs the program: fetches a step's descriptor and weights, starts its unit, waits for it."""

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.memory import ADDRESS_WIDTH, FetchRequest
from bnnhw.gateware.program import (
    DESCRIPTOR_WORDS,
    LOAD_WIDTH,
    EntryRows,
    Geometry,
    Kind,
    Sinks,
    Sources,
)


class Sequencer(wiring.Component):
    """Steps through the program while `run` is high, over and over: one round a frame.

    `load_sinks`, with the descriptor's third word in `sinks`, and `load_sources`, with `sources`,
    are strobes for the units' address counters. `start_*` strobes follow once the weights are
    in. The step ends when `idle`; `step_done` marks its last cycle, `frame_done` its frame's.

    The fetch port reads consecutive words: the descriptor, the weights, and while a convolution
    runs its features, of which the window loader asks `more`; `more_taken` is its grant. After a
    word given with `skip`, `gap` words are left out. While the multipliers run, `lends`
    is high and no word is asked for. With `image_bits` the stem is a convolution.

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
    lends : Out(1)                      the fetch port is the multipliers'
    convolves : Out(1)                  the step is a convolution
    step_done, frame_done : Out(1)      strobes
    fetch : Out(FetchRequest)           reads program, weights and features
    more : In(1)                        a feature word is wanted
    more_taken : Out(1)                 it is granted; combinational
    skip : In(1)                        `gap` words are left out after this one; with `more`
    write_weights : Out(1)              `fetch.data` goes to the weight buffer in this cycle
    write_entry, write_row : Out(entry), Out(2)    where to; with `write_weights`
    """

    def __init__(
        self, *, weight_depth: int, passes: bool = False, image_bits: bool = False, gap: int = 0
    ) -> None:
        if 3 * weight_depth >= 1 << LOAD_WIDTH:
            raise ValueError(f"weight_depth={weight_depth}: a step can load no more than 256")
        self._passes = passes
        self._entry = unsigned(exact_log2(weight_depth))
        self._image_bits, self._gap = image_bits, gap
        super().__init__(
            {
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
                "lends": Out(1),
                "convolves": Out(1),
                "step_done": Out(1),
                "frame_done": Out(1),
                "fetch": Out(FetchRequest()),
                "more": In(1),
                "more_taken": Out(1),
                "skip": In(1),
                "write_weights": Out(1),
                "write_entry": Out(self._entry),
                "write_row": Out(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        program = Signal(ADDRESS_WIDTH)
        left, pending = Signal(LOAD_WIDTH), Signal(LOAD_WIDTH)
        wanted = Signal()  # left is not 0
        weights = Signal(ADDRESS_WIDTH)
        rows = Signal(EntryRows)
        arrived = Signal()
        taken = Signal()
        m.d.comb += [
            taken.eq(self.fetch.request & self.fetch.grant),
            self.sources.eq(self.fetch.data),
            self.sinks.eq(self.fetch.data),
        ]
        with m.If(taken):
            step = Mux(self.skip, self._gap + 1, 1) if self._gap else 1
            m.d.sync += [self.fetch.address.eq(self.fetch.address + step), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += wanted.eq(0)
        m.d.sync += arrived.eq(taken)

        kind, stem = self.geometry.kind, self.geometry.kind == Kind.STEM
        m.d.comb += self.convolves.eq((kind == Kind.CONV) | (stem & self._image_bits))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [self.fetch.address.eq(program), left.eq(DESCRIPTOR_WORDS)]
                m.d.sync += wanted.eq(1)
                with m.If(self.run):
                    m.next = "DESCRIPTOR"
            with m.State("DESCRIPTOR"):
                m.d.comb += self.fetch.request.eq(wanted)
                self._descriptor(m, arrived, left, pending, weights, wanted, rows)
            with m.State("WEIGHTS"):
                m.d.comb += [self.fetch.request.eq(wanted), self.write_weights.eq(arrived)]
                self._weights(m, arrived, wanted, rows)
            with m.State("START"):
                m.d.comb += [
                    self.start_stem.eq(stem & ~self.convolves),
                    self.start_conv.eq(self.convolves),
                    self.start_head.eq(kind == Kind.HEAD),
                    self.start_pointwise.eq(kind == Kind.POINTWISE),
                ]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [self.fetch.request.eq(self.more), self.more_taken.eq(taken)]
                m.d.comb += self.lends.eq(~self.convolves)
                with m.If(self.idle):
                    m.d.comb += [self.step_done.eq(1), self.frame_done.eq(self.geometry.last)]
                    m.d.sync += [
                        program.eq(program + DESCRIPTOR_WORDS),
                        self.step.eq(self.step + 1),
                    ]
                    with m.If(self.geometry.last):
                        m.d.sync += [program.eq(0), self.step.eq(0)]
                    m.next = "IDLE"
        return m

    def _descriptor(
        self,
        m: Module,
        arrived: Signal,
        left: Signal,
        pending: Signal,
        weights: Signal,
        wanted: Signal,
        rows: Signal,
    ) -> None:
        """A word arrives a cycle after it was counted: 2, 1, 0 are left after each."""
        with m.If(arrived):
            with m.Switch(left):
                with m.Case(2):
                    m.d.sync += self.geometry.eq(self.fetch.data)
                with m.Case(1):
                    m.d.comb += self.load_sources.eq(1)
                    m.d.sync += [
                        self.features.eq(self.sources.features),
                        pending.eq(self.sources.weight_words),
                        weights.eq(self.sources.weights),
                    ]
                with m.Case(0):
                    m.d.comb += self.load_sinks.eq(1)
                    m.d.sync += [
                        self.fetch.address.eq(weights),
                        left.eq(pending),
                        wanted.eq(1),
                        self.write_entry.eq(0),
                        self.write_row.eq(self.sinks.rows.skip_first if self._passes else 0),
                    ]
                    if self._passes:
                        m.d.sync += rows.eq(self.sinks.rows)
                    m.next = "WEIGHTS"

    def _weights(self, m: Module, arrived: Signal, wanted: Signal, rows: Signal) -> None:
        with m.If(arrived):
            m.d.sync += self.write_row.eq(self.write_row + 1)
            with m.If(self.write_row == Mux(rows.skip_last, 1, 2)):
                m.d.sync += self.write_row.eq(rows.skip_first)
                m.d.sync += self.write_entry.eq(self.write_entry + 1)
            with m.If(~wanted):
                m.d.sync += self.fetch.address.eq(self.features)
                m.next = "START"
