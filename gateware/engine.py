"""The whole engine: one array, one program, one memory or one more for the residual stream."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from bnnhw.gateware.arbiter import Arbiter
from bnnhw.gateware.array import Array
from bnnhw.gateware.buffers import WeightBuffer, WindowBuffer, weight_word
from bnnhw.gateware.delay import Delay
from bnnhw.gateware.dense import Dense
from bnnhw.gateware.frontdoor import ByteWriter
from bnnhw.gateware.issue import ConvolutionIssue
from bnnhw.gateware.lane import Lanes, Token
from bnnhw.gateware.loader import WindowLoader, written
from bnnhw.gateware.macs import MacBank, MacFormat
from bnnhw.gateware.memory import MemorySignature, WordSource
from bnnhw.gateware.operand import Factors, OperandReader
from bnnhw.gateware.parameters import LANES, WORD_WIDTH, EngineParameters
from bnnhw.gateware.program import Kind
from bnnhw.gateware.results import ResultBit, Results
from bnnhw.gateware.sequencer import Sequencer
from bnnhw.gateware.shortcut import ShortcutReader
from bnnhw.gateware.writers import BitWriter, ResidualWriter


class Engine(wiring.Component):
    """Runs a network from memory: pixels in, logits out.

    The memory holds the program, weights and maps (bnnhw.compiler.plan lays them out). Nothing in
    the pipeline stalls: the issue leaves a free memory cycle for each thing that cannot wait.
    In the order of precedence a memory cycle goes to reads of shortcut and operand, the residual
    write, the write of bits, bytes from outside, and fetches.

    Members
    -------
    memory : the board's; one access a cycle, read data in the next.
    stream : another of the board's for the residual stream, with more than one channel in parallel.
    words : program and weights, where they come from a stream; there is no boot image then.
    load : boot image, from word 0 up, low byte first; taken until `run`.
    run : the boot image is complete; stays high.
    pixels : frames of height x width x channels bytes. A frame's pixels are taken while the
        last frame is still computed, once its stem is done.
    results : a frame's logits, class 0 first, then its class, then its cycles, counted from its
        last pixel or, if that is later, from the last logit of the frame before.
    ready : weights that stay are in their buffers, frames may come; stays high.
    busy : a whole frame is in and its class not out.
    step_done, step : for benches: in the last cycle of program step `step` its maps are in memory.
    """

    def __init__(self, parameters: EngineParameters, *, image_base: int) -> None:
        self._parameters, self._image_base = parameters, image_base
        stream_memory = {"stream": Out(MemorySignature(parameters.word_width))}
        words = {"words": Out(WordSource())}
        super().__init__(
            (stream_memory if parameters.own_stream else {})
            | (words if parameters.streams else {})
            | {
                "memory": Out(MemorySignature()),
                "load": In(stream.Signature(8)),
                "run": In(1),
                "pixels": In(stream.Signature(8)),
                "results": Out(stream.Signature(ResultBit)),
                "ready": Out(1),
                "busy": Out(1),
                "step_done": Out(1),
                "step": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        m.submodules.sequencer = sequencer = Sequencer(
            weight_depth=p.weight_depth, passes=p.passes, slopes=p.activation, pe=p.pe,
            resident=p.resident, image_bits=p.levels > 0, gap=p.strip_gap or 0, streams=p.streams,
        )  # fmt: skip
        if p.streams:
            connect(m, sequencer.words, flipped(self.words))
        m.submodules.door = door = ByteWriter(p, image_base=self._image_base)
        m.submodules.dense = dense = Dense(p)
        weights = self._weights(m, sequencer, dense)
        m.submodules.residual_writer = residuals = ResidualWriter(p)
        m.submodules.bit_writer = bits = BitWriter(pe=p.pe)
        m.submodules.shortcut = shortcut = ShortcutReader(p)
        lanes = [Lanes(p) for _ in range(p.pe)]
        for channel, unit in enumerate(lanes):
            m.submodules[f"lanes_{channel}"] = unit
        array, issue, loader = self._convolution(m, sequencer, door, weights)

        token, early = self._token(m, sequencer, issue, dense, shortcut)
        self._dense(m, sequencer, dense, door, weights)
        m.d.comb += self._entry.eq(Mux(sequencer.convolves, self._issued_entry, dense.weight_entry))
        operand = None
        if p.passes:
            operand = self._operand(m, sequencer, early, weights, shortcut, lanes)
        if p.gates:
            self._gates(m, sequencer, lanes, residuals)
        if p.spatial:
            self._factors(m, sequencer, token, array, lanes)
        self._macs(m, sequencer, dense, lanes)
        self._lanes(m, sequencer, token, array, dense, weights, shortcut, lanes)
        self._writers(m, sequencer, lanes, residuals, bits)
        self._memory(m, shortcut, residuals, bits, door, sequencer, dense, operand)
        self._finish(m, sequencer, issue, dense, lanes[0], residuals, bits)
        self._outside(m, sequencer, dense, door)
        return m

    def _weights(self, m: Module, sequencer: Sequencer, dense: Dense) -> list[WeightBuffer]:
        """A buffer for each channel in parallel; all of them read the same entries."""
        p = self._parameters
        buffers = [WeightBuffer(p) for _ in range(p.pe)]
        self._entry = Signal.like(buffers[0].weight_entry)  # of the weights
        self._issued_entry = Signal.like(self._entry)
        word = Signal(weight_word(p))
        m.d.comb += [
            word.write.eq(sequencer.write_weights),
            word.entry.eq(sequencer.write_entry),
            word.row.eq(sequencer.write_row),
            word.channel.eq(sequencer.write_channel),
            word.data.eq(sequencer.words.data if p.streams else sequencer.fetch.data),
        ]
        first = word
        if p.pe > 1:
            first = Signal.like(word)
            m.d.sync += first.eq(word)
        for channel, buffer in enumerate(buffers):
            m.submodules[f"weights_{channel}"] = buffer
            handed, mine = first, first.write & (first.channel == channel)
            if p.pe > 1:
                handed = Signal.like(word, name=f"word_{channel}", attrs={"keep": 1})
                m.d.sync += [handed.eq(first), handed.write.eq(mine)]
            taps = Cat(tap for row in buffer.weights for tap in row)
            m.d.comb += [
                buffer.weight_entry.eq(self._entry),
                buffer.half.eq(sequencer.half),
                buffer.write.eq(handed.write),
                buffer.write_entry.eq(handed.entry),
                buffer.write_row.eq(handed.row),
                buffer.write_data.eq(handed.data),
                dense.weights[channel].eq(taps),
            ]
        return buffers

    def _convolution(
        self, m: Module, sequencer: Sequencer, door: ByteWriter, weights: list[WeightBuffer]
    ) -> tuple[Array, ConvolutionIssue, WindowLoader]:
        p = self._parameters
        m.submodules.issue = issue = ConvolutionIssue(p)
        m.submodules.loader = loader = WindowLoader(p)
        m.submodules.window = window = WindowBuffer(depth=p.window_depth)
        m.submodules.array = array = Array(acc_width=p.acc_width, pe=p.pe)
        word = sequencer.fetch.data
        if p.own_stream:
            word = Signal.like(word)
            m.d.sync += word.eq(sequencer.fetch.data)
        word = written(p, word, loader)
        m.d.comb += [
            issue.geometry.eq(sequencer.geometry),
            issue.start.eq(sequencer.start_conv),
            issue.ahead.eq(loader.ahead),
            issue.entry.eq(sequencer.entry),
            loader.geometry.eq(sequencer.geometry),
            loader.start.eq(sequencer.start_conv),
            loader.retire.eq(issue.retire),
            loader.grant.eq(sequencer.more_taken),
            loader.waits.eq((sequencer.geometry.kind == Kind.STEM) & ~door.complete),
            loader.received.eq(door.received),
            sequencer.more.eq(loader.request),
            sequencer.skip.eq(loader.row_end & self._strip(sequencer)),
            window.write.eq(loader.write),
            window.write_row.eq(loader.write_row),
            window.write_column.eq(loader.write_column),
            window.write_data.eq(word),
            array.window.eq(window.window),
            *(array.weights[at].eq(buffer.weights) for at, buffer in enumerate(weights)),
        ]
        # Addresses go to many memories: they are registered, and what belongs to them is late, too.
        outside, first = Signal.like(issue.outside), Signal()
        m.d.sync += [
            window.rows.eq(issue.rows),
            window.columns.eq(issue.columns),
            self._issued_entry.eq(issue.weight_entry),
            outside.eq(issue.outside),
            first.eq(issue.first),
            array.outside.eq(outside),
            array.first.eq(first),
        ]
        return array, issue, loader

    def _token(
        self, m: Module, sequencer: Sequencer, issue: ConvolutionIssue, dense: Dense,
        shortcut: ShortcutReader,
    ) -> tuple[Any, Any]:  # fmt: skip
        """That for the lanes: with the array's sums or the multipliers', 0 while there is none.
        In a pointwise step the issue waits for the sums, and its tokens do not."""
        p = self._parameters
        m.submodules.wait = wait = Delay(Token, p.array_latency - 1)
        early, late, walked, token = (Signal(Token) for _ in range(4))
        m.d.sync += [early.eq(wait.o), late.eq(early)]
        m.d.comb += [
            wait.i.eq(issue.token),
            walked.eq(late),
            token.eq(walked),
            # With passes an operand is read when a shortcut is without, so that before it.
            shortcut.token.eq(wait.o if p.passes else early),
        ]
        if p.own_stream and p.halves == 2:  # a stream may be moved by half a word
            odd = sequencer.geometry.shortcut_first[0] & sequencer.geometry.add
            m.d.comb += shortcut.token.odd.eq((wait.o if p.passes else early).odd ^ odd)
        if p.gates or not p.levels:
            m.d.comb += token.eq(walked.as_value() | dense.token.as_value())
        if p.pointwise:
            pointwise = sequencer.geometry.kind == Kind.POINTWISE
            with m.If(pointwise):
                m.d.comb += [wait.i.valid.eq(0), walked.eq(issue.token)]
            m.d.comb += [
                issue.start.eq(sequencer.start_conv | sequencer.start_pointwise),
                issue.pointwise.eq(pointwise),
                issue.hold.eq(dense.hold),
                dense.start_pointwise.eq(sequencer.start_pointwise),
                dense.issued.eq(issue.token.valid),
                dense.quarter.eq(issue.quarter),
                dense.last_four.eq(issue.last_four),
                dense.last_position.eq(issue.last_position),
            ]
        return token, early

    def _strip(self, sequencer: Sequencer) -> Value:
        """Whether the step makes a strip of the image's map."""
        return sequencer.geometry.more_left | sequencer.geometry.more_right

    def _dense(
        self, m: Module, sequencer: Sequencer, dense: Dense, door: ByteWriter,
        weights: list[WeightBuffer],
    ) -> None:  # fmt: skip
        m.d.comb += [
            dense.geometry.eq(sequencer.geometry),
            dense.start_stem.eq(sequencer.start_stem),
            dense.start_head.eq(sequencer.start_head),
            dense.base.eq(sequencer.features),
            dense.entry.eq(sequencer.entry),
            dense.received.eq(door.received),
            dense.complete.eq(door.complete),
        ]
        with m.If(sequencer.load_sinks):
            m.d.sync += dense.head_words.eq(sequencer.sinks.head_words)

    def _operand(
        self, m: Module, sequencer: Sequencer, early: Any, weights: list[WeightBuffer],
        shortcut: ShortcutReader, lanes: list[Lanes],
    ) -> OperandReader:  # fmt: skip
        g = sequencer.geometry
        m.submodules.operand = operand = OperandReader(self._parameters.pe)
        m.d.comb += [
            operand.load.eq(sequencer.load_sinks),
            operand.base.eq(sequencer.sinks.operand),
            operand.token.eq(Mux(g.scaled, early.as_value(), 0)),
            shortcut.in_place.eq(g.in_place),
        ]
        for channel, (unit, buffer) in enumerate(zip(lanes, weights, strict=True)):
            m.d.comb += [
                unit.wide_out.eq(g.wide_out),
                unit.scaled.eq(g.scaled),
                unit.operand.eq(operand.operand[channel]),
                unit.negative.eq(buffer.weights[0][0]),
            ]
        with m.If(g.scaled):
            m.d.comb += self._entry.eq(weights[0].scale_entry)
        return operand

    def _gates(
        self, m: Module, sequencer: Sequencer, lanes: list[Lanes], residuals: ResidualWriter
    ) -> None:
        """A gate's layer gives all lanes one number at a time, none of them less than 0."""
        g = sequencer.geometry
        layer = (g.kind == Kind.HEAD) & g.keep
        m.d.comb += [
            lanes[0].positive.eq(layer),
            lanes[0].fraction.eq(layer & g.mask),
            residuals.apart.eq(Mux(layer, g.shortcut_first, 1)),
        ]

    def _factors(
        self, m: Module, sequencer: Sequencer, token: Any, array: Array, lanes: list[Lanes]
    ) -> None:
        """In steps with factors the window is filled with these."""
        spatial = sequencer.geometry.spatial
        m.submodules.factors = factors = Factors()
        m.d.comb += [
            factors.token.eq(Mux(spatial, token.as_value(), 0)),
            factors.window.eq(array.window),
            factors.load.eq(sequencer.load_sinks),
            factors.upper.eq(sequencer.sinks.upper),
        ]
        for unit in lanes:
            m.d.comb += [unit.spatial.eq(spatial), unit.factors.eq(factors.factors)]

    def _macs(self, m: Module, sequencer: Sequencer, dense: Dense, lanes: list[Lanes]) -> None:
        """The 8-bit layers' multiply-accumulators: banks, or the lanes' second multipliers."""
        p = self._parameters
        for channel, unit in enumerate(lanes):
            if p.activation:
                connect(m, dense.macs[channel], unit.macs)
                m.d.comb += unit.accumulate.eq(~sequencer.convolves & ~dense.lends)
                continue
            m.submodules[f"macs_{channel}"] = macs = MacBank(MacFormat.of(p), p.tokens)
            connect(m, dense.macs[channel], macs.macs)

    def _lanes(
        self, m: Module, sequencer: Sequencer, token: Any, array: Array, dense: Dense,
        weights: list[WeightBuffer], shortcut: ShortcutReader, lanes: list[Lanes],
    ) -> None:  # fmt: skip
        """Token in cycle t; accumulators and scale in t + 1, shortcut and bias in t + 2, with an
        activation slopes in t + 4 and shift_out in t + 5; the threshold with the result."""
        p, g = self._parameters, sequencer.geometry
        entry = Signal.like(weights[0].scale_entry)
        first = sequencer.entry if p.resident else Const(0)
        with m.If(token.valid):
            folds = Mux(g.scaled, 0, g.folds) if p.passes else g.folds
            after = entry + folds + 1
            m.d.sync += entry.eq(Mux(token.position_end, first, after))
        if p.resident:
            starts = sequencer.start_stem | sequencer.start_conv
            with m.If(starts | sequencer.start_head | sequencer.start_pointwise):
                m.d.sync += entry.eq(first)
        later = {"bias_entry": 1, "threshold_entry": lanes[0].latency}
        if p.activation:
            later |= {"slope_entry": 3, "last_entry": 4}
        entries = {"scale_entry": entry}
        for name, cycles in later.items():
            m.submodules[name] = delay = Delay(entry.shape(), cycles)
            m.d.comb += delay.i.eq(entry)
            entries[name] = delay.o
        lane_token = Signal(Token)
        m.d.sync += lane_token.eq(token)
        for channel, (unit, buffer) in enumerate(zip(lanes, weights, strict=True)):
            acc = array.acc[channel]
            first_half = acc[0]
            if p.gates or p.pointwise or not p.levels:
                first_half = Mux(sequencer.convolves, first_half, dense.halves[channel])
            if p.activation:
                m.d.comb += [
                    unit.above.eq(buffer.above),
                    unit.below.eq(buffer.below),
                    unit.shift_out.eq(buffer.shift_out),
                ]
            m.d.comb += [
                *(getattr(buffer, name).eq(value) for name, value in entries.items()),
                unit.token.eq(lane_token),
                unit.single.eq(g.single | unit.positive),
                unit.first_half.eq(first_half),
                unit.scale.eq(buffer.scale),
                unit.bias.eq(buffer.bias),
                unit.threshold.eq(buffer.threshold),
                unit.residual.eq(shortcut.residual[channel]),
                *(unit.other_halves[lane - 1].eq(acc[lane]) for lane in range(1, LANES)),
            ]

    def _writers(
        self, m: Module, sequencer: Sequencer, lanes: list[Lanes], residuals: ResidualWriter,
        bits: BitWriter,
    ) -> None:  # fmt: skip
        g = sequencer.geometry
        for channel, unit in enumerate(lanes):
            m.d.comb += bits.bits[channel].eq(unit.bits)
            for lane in range(LANES):
                m.d.comb += residuals.y[channel][lane].eq(unit.y[lane])
        ends: Any = (
            (residuals, g.keep, sequencer.sinks.residual),
            (bits, g.emit, sequencer.sinks.bits),
        )
        for writer, enable, base in ends:
            m.d.comb += [
                writer.token.eq(lanes[0].y_token),
                writer.fresh.eq(lanes[0].fresh),
                writer.enable.eq(enable),
                writer.single.eq(g.single),
                writer.walk.eq(sequencer.walk),
                writer.load.eq(sequencer.load_sinks),
                writer.base.eq(base),
            ]

    def _memory(
        self, m: Module, shortcut: ShortcutReader, residuals: ResidualWriter, bits: BitWriter,
        door: ByteWriter, sequencer: Sequencer, dense: Dense, operand: OperandReader | None,
    ) -> None:  # fmt: skip
        """One access a cycle of each memory, by precedence. Operand and shortcut never ask in the
        same cycle, nor do sequencer and multipliers."""
        p = self._parameters
        stream: dict[str, Any] = {"shortcut": shortcut.memory}
        if operand is not None:
            stream["operand"] = operand.memory
        stream["residuals"] = residuals.memory
        others: dict[str, Any] = dict(bits=bits.memory, door=door.memory)
        if p.own_stream:
            stream["dense"] = dense.fetch
            if not p.levels:
                others["dense"] = dense.image
            self._arbiter(m, "stream_arbiter", stream, p.word_width, self.stream)
        else:
            others = stream | others | {"dense": dense.fetch}
        others["fetch"] = sequencer.fetch
        self._arbiter(m, "arbiter", others, WORD_WIDTH, self.memory)
        g = sequencer.geometry
        m.d.comb += [
            shortcut.load.eq(sequencer.load_sources),
            shortcut.base.eq(sequencer.sources.shortcut),
            shortcut.walk.eq(Mux(g.single & ~g.in_place, 0, sequencer.walk.as_value())),
            shortcut.mean.eq(sequencer.geometry.mean),
            shortcut.period.eq(sequencer.sources.period),
        ]

    def _arbiter(
        self, m: Module, name: str, clients: dict[str, Any], width: int, memory: Any
    ) -> None:
        arbiter = Arbiter({name: port.signature for name, port in clients.items()}, width)
        m.submodules[name] = arbiter
        for client, port in clients.items():
            connect(m, port, getattr(arbiter, client))
        connect(m, arbiter.memory, flipped(memory))

    def _finish(
        self, m: Module, sequencer: Sequencer, issue: ConvolutionIssue, dense: Dense, lanes: Lanes,
        residuals: ResidualWriter, bits: BitWriter,
    ) -> None:  # fmt: skip
        """A step is over when nothing is on its way any more."""
        on_the_way = Signal(range(16))
        entered = issue.token.valid | dense.token.valid
        m.d.sync += on_the_way.eq(on_the_way + entered - lanes.fresh)
        busy = issue.busy | dense.busy | (on_the_way != 0)
        m.d.comb += sequencer.idle.eq(~(busy | residuals.memory.request | bits.memory.request))

    def _outside(self, m: Module, sequencer: Sequencer, dense: Dense, door: ByteWriter) -> None:
        connect(m, door.load, flipped(self.load))
        connect(m, door.pixels, flipped(self.pixels))
        m.submodules.results = results = Results(classes=self._parameters.classes)
        stem = sequencer.geometry.kind == Kind.STEM
        m.d.sync += door.consume.eq(sequencer.step_done & stem & ~sequencer.geometry.more_right)
        connect(m, dense.logits, results.logits)
        connect(m, results.o, flipped(self.results))
        m.d.comb += [
            sequencer.run.eq(self.run),
            door.run.eq(sequencer.ready),
            results.complete.eq(door.complete),
            self.step_done.eq(sequencer.step_done),
            self.step.eq(sequencer.step),
            self.ready.eq(sequencer.ready),
            self.busy.eq(results.timing),
        ]
