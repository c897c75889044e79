"""The whole engine: one memory, one array, one program."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from bnnhw.gateware.array import Array
from bnnhw.gateware.buffers import WeightBuffer, WindowBuffer
from bnnhw.gateware.delay import Delay
from bnnhw.gateware.dense import Dense
from bnnhw.gateware.frontdoor import ByteWriter
from bnnhw.gateware.issue import ConvolutionIssue
from bnnhw.gateware.lane import Lanes, Token
from bnnhw.gateware.loader import WindowLoader, mask_lanes
from bnnhw.gateware.memory import MemorySignature
from bnnhw.gateware.operand import Factors, OperandReader
from bnnhw.gateware.parameters import LANES, EngineParameters
from bnnhw.gateware.program import Kind
from bnnhw.gateware.results import ResultBit, Results
from bnnhw.gateware.sequencer import Sequencer
from bnnhw.gateware.shortcut import ShortcutReader
from bnnhw.gateware.writers import BitWriter, ResidualWriter

ARRAY_LATENCY = 6  # cycles from an issue to its accumulators


class Engine(wiring.Component):
    """Runs a network from memory: pixels in, logits out.

    The memory holds the program, weights and maps (bnnhw.compiler.plan lays them out). Nothing in
    the pipeline stalls: the issue leaves a free memory cycle for each thing that cannot wait.
    In the order of precedence a memory cycle goes to the shortcut read, the residual write, the
    write of bits, bytes from outside, and fetches.

    Members
    -------
    memory : the board's; one access a cycle, read data in the next.
    load : boot image, from word 0 up, low byte first; taken until `run`.
    run : the boot image is complete; stays high.
    pixels : frames of height x width x channels bytes. A frame's pixels are taken while the
        last frame is still computed, once its stem is done.
    results : a frame's logits, class 0 first, then its class, then its cycles, counted from its
        last pixel or, if that is later, from the last logit of the frame before.
    busy : a whole frame is in and its class not out.
    step_done, step : for benches: in the last cycle of program step `step` its maps are in memory.
    """

    def __init__(self, parameters: EngineParameters, *, image_base: int) -> None:
        self._parameters, self._image_base = parameters, image_base
        super().__init__(
            {
                "memory": Out(MemorySignature()),
                "load": In(stream.Signature(8)),
                "run": In(1),
                "pixels": In(stream.Signature(8)),
                "results": Out(stream.Signature(ResultBit)),
                "busy": Out(1),
                "step_done": Out(1),
                "step": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        gaps = p.gaps or (0, 0, 0)
        m.submodules.sequencer = sequencer = Sequencer(
            weight_depth=p.weight_depth, passes=p.passes, image_bits=p.levels > 0, gap=gaps[0]
        )
        m.submodules.door = door = ByteWriter(p, image_base=self._image_base)
        m.submodules.dense = dense = Dense(p)
        m.submodules.weights = weights = WeightBuffer(depth=p.weight_depth, thresholds=p.thresholds)
        m.submodules.residual_writer = residuals = ResidualWriter(p)
        m.submodules.bit_writer = bits = BitWriter(gap=gaps[1])
        m.submodules.shortcut = shortcut = ShortcutReader(p)
        m.submodules.lanes = lanes = Lanes(p)
        array, issue, loader = self._convolution(m, sequencer, door, weights)

        token = self._token(m, sequencer, issue, dense, shortcut)
        self._dense(m, sequencer, dense, door, weights)
        m.d.comb += weights.weight_entry.eq(
            Mux(sequencer.convolves, issue.weight_entry, dense.weight_entry)
        )
        operand = None
        if p.passes:
            operand = self._operand(m, sequencer, token, weights, shortcut, lanes)
        if p.gates:
            self._gates(m, sequencer, lanes, residuals)
        if p.spatial:
            self._factors(m, sequencer, token, array, lanes)
        self._lanes(m, sequencer, token, array, dense, weights, shortcut, lanes)
        self._writers(m, sequencer, lanes, residuals, bits)
        self._memory(m, shortcut, residuals, bits, door, sequencer, dense, operand)
        self._finish(m, sequencer, issue, dense, lanes, residuals, bits)
        self._outside(m, sequencer, dense, door)
        return m

    def _convolution(
        self, m: Module, sequencer: Sequencer, door: ByteWriter, weights: WeightBuffer
    ) -> tuple[Array, ConvolutionIssue, WindowLoader]:
        p = self._parameters
        m.submodules.issue = issue = ConvolutionIssue(p)
        m.submodules.loader = loader = WindowLoader(p)
        m.submodules.window = window = WindowBuffer(depth=p.window_depth)
        m.submodules.array = array = Array(acc_width=p.acc_width)
        word = sequencer.fetch.data
        if p.minus_one:
            word = mask_lanes(word, loader.write_lanes)
        m.d.comb += [
            issue.geometry.eq(sequencer.geometry),
            issue.start.eq(sequencer.start_conv),
            issue.ahead.eq(loader.ahead),
            loader.geometry.eq(sequencer.geometry),
            loader.start.eq(sequencer.start_conv),
            loader.retire.eq(issue.retire),
            loader.grant.eq(sequencer.more_taken),
            loader.waits.eq((sequencer.geometry.kind == Kind.STEM) & ~door.complete),
            loader.received.eq(door.received),
            sequencer.more.eq(loader.request),
            sequencer.skip.eq(loader.row_end & self._strip(sequencer)),
            window.rows.eq(issue.rows),
            window.columns.eq(issue.columns),
            window.write.eq(loader.write),
            window.write_row.eq(loader.write_row),
            window.write_column.eq(loader.write_column),
            window.write_data.eq(word),
            array.window.eq(window.window),
            array.weights.eq(weights.weights),
        ]
        m.d.sync += [array.outside.eq(issue.outside), array.first.eq(issue.first)]
        return array, issue, loader

    def _token(
        self, m: Module, sequencer: Sequencer, issue: ConvolutionIssue, dense: Dense,
        shortcut: ShortcutReader,
    ) -> tuple[Signal, Signal]:  # fmt: skip
        """That for the lanes: with the array's sums or the multipliers', 0 while there is none.
        In a pointwise step the issue waits for the sums, and its tokens do not."""
        p = self._parameters
        m.submodules.wait = wait = Delay(Token, ARRAY_LATENCY - 2)
        late, walked, token = Signal(Token), Signal(Token), Signal(Token)
        m.d.sync += late.eq(wait.o)
        m.d.comb += [
            wait.i.eq(issue.token),
            walked.eq(late),
            token.eq(walked),
            # An operand is read with its token, so with passes a shortcut is read the cycle before.
            shortcut.token.eq(wait.o if p.passes else token),
        ]
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
        return token

    def _strip(self, sequencer: Sequencer) -> Value:
        """Whether the step makes a strip of the image's map."""
        return sequencer.geometry.more_left | sequencer.geometry.more_right

    def _dense(
        self, m: Module, sequencer: Sequencer, dense: Dense, door: ByteWriter, weights: WeightBuffer
    ) -> None:
        taps = [tap for row in weights.weights for tap in row]
        m.d.comb += [
            dense.geometry.eq(sequencer.geometry),
            dense.start_stem.eq(sequencer.start_stem),
            dense.start_head.eq(sequencer.start_head),
            dense.base.eq(sequencer.features),
            dense.received.eq(door.received),
            dense.complete.eq(door.complete),
            dense.weights.eq(Cat(taps[: 2 * len(dense.weights)])),
            weights.write.eq(sequencer.write_weights),
            weights.write_entry.eq(sequencer.write_entry),
            weights.write_row.eq(sequencer.write_row),
            weights.write_data.eq(sequencer.fetch.data),
        ]
        with m.If(sequencer.load_sinks):
            m.d.sync += dense.head_words.eq(sequencer.sinks.head_words)

    def _operand(
        self, m: Module, sequencer: Sequencer, token: Signal, weights: WeightBuffer,
        shortcut: ShortcutReader, lanes: Lanes,
    ) -> OperandReader:  # fmt: skip
        g = sequencer.geometry
        m.submodules.operand = operand = OperandReader()
        m.d.comb += [
            operand.load.eq(sequencer.load_sinks),
            operand.base.eq(sequencer.sinks.operand),
            operand.token.eq(Mux(g.scaled, token.as_value(), 0)),
            shortcut.in_place.eq(g.in_place),
            shortcut.mean.eq(g.mean),
            shortcut.period.eq(sequencer.sources.period),
            lanes.wide_out.eq(g.wide_out),
            lanes.scaled.eq(g.scaled),
            lanes.operand.eq(operand.operand),
            lanes.negative.eq(weights.weights[0][0]),
        ]
        with m.If(g.scaled):
            m.d.comb += weights.weight_entry.eq(weights.scale_entry)
        return operand

    def _gates(
        self, m: Module, sequencer: Sequencer, lanes: Lanes, residuals: ResidualWriter
    ) -> None:
        """A gate's layer gives all lanes one number at a time, none of them less than 0."""
        g = sequencer.geometry
        layer = (g.kind == Kind.HEAD) & g.keep
        m.d.comb += [
            lanes.positive.eq(layer),
            lanes.fraction.eq(layer & g.mask),
            residuals.apart.eq(Mux(layer, g.shortcut_first, 1)),
        ]

    def _factors(
        self, m: Module, sequencer: Sequencer, token: Signal, array: Array, lanes: Lanes
    ) -> None:
        """In steps with factors the window is filled with these."""
        spatial = sequencer.geometry.spatial
        m.submodules.factors = factors = Factors()
        m.d.comb += [
            factors.token.eq(Mux(spatial, token.as_value(), 0)),
            factors.window.eq(array.window),
            factors.load.eq(sequencer.load_sinks),
            factors.upper.eq(sequencer.sinks.upper),
            lanes.spatial.eq(spatial),
            lanes.factors.eq(factors.factors),
        ]

    def _lanes(
        self, m: Module, sequencer: Sequencer, token: Signal, array: Array, dense: Dense,
        weights: WeightBuffer, shortcut: ShortcutReader, lanes: Lanes,
    ) -> None:  # fmt: skip
        """Token in cycle t; accumulators and scale in t + 1, shortcut and bias in t + 2."""
        p, g = self._parameters, sequencer.geometry
        entry = Signal.like(weights.scale_entry)
        with m.If(token.valid):
            folds = Mux(g.scaled, 0, g.folds) if p.passes else g.folds
            after = entry + folds + 1
            m.d.sync += entry.eq(Mux(token.position_end, 0, after))
        m.submodules.bias_entry = bias_entry = Delay(entry.shape(), 1)
        m.submodules.threshold_entry = threshold_entry = Delay(entry.shape(), 3)
        first_half = array.acc[0]
        if p.gates or p.pointwise or not p.levels:
            first_half = Mux(sequencer.convolves, first_half, dense.half)
        m.d.sync += lanes.token.eq(token)
        m.d.comb += [
            bias_entry.i.eq(entry),
            threshold_entry.i.eq(entry),
            weights.scale_entry.eq(entry),
            weights.bias_entry.eq(bias_entry.o),
            weights.threshold_entry.eq(threshold_entry.o),
            lanes.single.eq(g.single | lanes.positive),
            lanes.first_half.eq(first_half),
            lanes.scale.eq(weights.scale),
            lanes.bias.eq(weights.bias),
            lanes.threshold.eq(weights.threshold),
            lanes.residual.eq(shortcut.residual),
        ]
        for lane in range(1, LANES):
            m.d.comb += lanes.other_halves[lane - 1].eq(array.acc[lane])

    def _writers(
        self, m: Module, sequencer: Sequencer, lanes: Lanes, residuals: ResidualWriter,
        bits: BitWriter,
    ) -> None:  # fmt: skip
        g = sequencer.geometry
        for lane in range(LANES):
            m.d.comb += residuals.y[lane].eq(lanes.y[lane])
        for writer, enable, base in (
            (residuals, g.keep, sequencer.sinks.residual),
            (bits, g.emit, sequencer.sinks.bits),
        ):
            m.d.comb += [
                writer.token.eq(lanes.y_token),
                writer.fresh.eq(lanes.fresh),
                writer.enable.eq(enable),
                writer.single.eq(g.single),
                writer.strip.eq(self._strip(sequencer)),
                writer.load.eq(sequencer.load_sinks),
                writer.base.eq(base),
            ]
        m.d.comb += bits.bits.eq(lanes.bits)

    def _memory(
        self, m: Module, shortcut: ShortcutReader, residuals: ResidualWriter, bits: BitWriter,
        door: ByteWriter, sequencer: Sequencer, dense: Dense, operand: OperandReader | None,
    ) -> None:  # fmt: skip
        """One access a cycle, by precedence. Operand and shortcut never ask in the same cycle."""
        port = self.memory
        m.d.comb += [
            shortcut.load.eq(sequencer.load_sources),
            shortcut.base.eq(sequencer.sources.shortcut),
            shortcut.memory.data.eq(port.read_data),
            sequencer.fetch.data.eq(port.read_data),
            dense.fetch.data.eq(port.read_data),
        ]
        # A tree of few levels: the address is the longest path of the design. Who fetches is
        # known early, who asks is not, and nothing waits for it.
        read, lends = shortcut.memory, sequencer.lends
        first, second, third = residuals.memory, bits.memory, door.memory
        reads, read_address = read.request, read.address
        if operand is not None:
            other = operand.memory
            m.d.comb += [other.data.eq(port.read_data), other.grant.eq(other.request)]
            reads |= other.request
            read_address = Mux(other.request, other.address, read_address)
        with m.If(reads | first.request):
            m.d.comb += [
                port.address.eq(Mux(reads, read_address, first.address)),
                port.write.eq(~reads),
                read.grant.eq(read.request),
                first.grant.eq(~reads),
            ]
        with m.Elif(second.request | third.request):
            m.d.comb += [
                port.address.eq(Mux(second.request, second.address, third.address)),
                port.write.eq(1),
                second.grant.eq(second.request),
                third.grant.eq(~second.request),
            ]
        with m.Else():
            m.d.comb += [
                port.address.eq(Mux(lends, dense.fetch.address, sequencer.fetch.address)),
                sequencer.fetch.grant.eq(~lends),
                dense.fetch.grant.eq(lends),
            ]
        with m.If(residuals.memory.request):
            m.d.comb += [
                port.write_data.eq(residuals.memory.data),
                port.write_mask.eq(residuals.memory.mask),
            ]
        with m.Elif(bits.memory.request):
            m.d.comb += [
                port.write_data.eq(bits.memory.data),
                port.write_mask.eq(bits.memory.mask),
            ]
        with m.Else():
            m.d.comb += [
                port.write_data.eq(door.memory.data),
                port.write_mask.eq(door.memory.mask),
            ]

    def _finish(
        self, m: Module, sequencer: Sequencer, issue: ConvolutionIssue, dense: Dense,
        lanes: Lanes, residuals: ResidualWriter, bits: BitWriter,
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
        connect(m, dense.logits, results.logits)
        connect(m, results.o, flipped(self.results))
        m.d.comb += [
            sequencer.run.eq(self.run),
            door.run.eq(self.run),
            door.consume.eq(sequencer.step_done & stem & ~sequencer.geometry.more_right),
            results.complete.eq(door.complete),
            self.step_done.eq(sequencer.step_done),
            self.step.eq(sequencer.step),
            self.busy.eq(results.timing),
        ]
