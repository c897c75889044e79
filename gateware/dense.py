"""The 8-bit layers, stem and head, on multiply-accumulators: some of each channel in parallel."""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.head import HeadWalker
from bnnhw.gateware.lane import Token, same
from bnnhw.gateware.macs import MAC_WEIGHTS, MacFormat, MacSignature
from bnnhw.gateware.memory import FetchRequest
from bnnhw.gateware.parameters import ADDRESS_WIDTH, GATE_SHIFT, LANES, EngineParameters
from bnnhw.gateware.program import WALK_WIDTH, Geometry, Kind
from bnnhw.gateware.stem import SIGNATURE, StemWalker


class Dense(wiring.Component):
    """Runs a stem, head or pointwise step: fetches words, feeds the accumulators, hands results on.

    A word is several units: bytes of a pixel in the stem, channels of a block in the head, whose
    four pixels are added up first (so that pooling costs no pass of its own). Weights are read
    one entry a unit, of each channel's a byte for each token. Sum t of channel c in parallel is
    that of output t * pe + c of those at work. The stem gives its sums, shifted right by
    `pre_shift`, `pe` of them a cycle: `token` a cycle ahead of `halves`. The head gives logits.
    There is no stem where the image is stored as the bits of a thermometer. Pointwise, where an
    entry has two units' weights, the issue walks the outputs, on `hold` until four of them are
    summed up: its half is there a cycle after `issued`, that of the `quarter` at that time. A
    gate's layer is a head that keeps: it has no bias and gives its sums as the stem does,
    shifted by GATE_SHIFT and saturated. With an activation `macs` are the lanes' second
    multipliers, which they have for their own while `lends`.

    Members
    -------
    start_stem, start_head, start_pointwise : In(1)    strobes: a step of this kind begins
    issued : In(1)                      the issue has taken a pointwise sum
    quarter : In(2)                     which of the four sums the issue takes next
    last_four, last_position : In(1)    these four are the position's last; it is the step's last
    hold : Out(1)                       pointwise: four sums are not there yet
    geometry : In(Geometry)             of the step; constant while it runs
    base : In(15)                       word address of the map; constant while it runs
    entry : In(entry)                   first of the step's in the weight buffer; constant
    head_words : In(14)                 words of the map, or pointwise of the block, less one
    received, complete : In(row), In(1) rows of the image in memory; all are
    fetch : Out(FetchRequest)           reads the map of residuals
    image : Out(FetchRequest)           reads the image, where it lies in another memory
    weight_entry : Out(entry)           of the weight buffer
    weights : In(pe x MAC_WEIGHTS)      of that entry, a cycle later; two each with pointwise
    token : Out(Token)                  of the next cycle's `halves`; stem and gates
    halves : Out(pe x signed 16)        sums, shifted right
    logits : Out(stream of signed 32 bits)    the head's
    logit_index : Out(class)            class of the logit on offer
    macs : Out(pe x MacSignature)       the multiply-accumulators
    lends : Out(1)                      tokens of the stem are in the lanes' second multipliers
    busy : Out(1)                       from the cycle after a start to the last result
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters, self._form = parameters, MacFormat.of(parameters)
        self._apart = parameters.own_stream and not parameters.levels  # image and residuals
        weights = data.ArrayLayout(MAC_WEIGHTS, 1 + parameters.pointwise)
        members: dict[str, Any] = {"image": Out(FetchRequest())} if self._apart else {}
        super().__init__(
            members
            | {
                "macs": Out(MacSignature(self._form, parameters.tokens)).array(parameters.pe),
                "start_stem": In(1),
                "start_head": In(1),
                "start_pointwise": In(1),
                "issued": In(1),
                "quarter": In(2),
                "last_four": In(1),
                "last_position": In(1),
                "hold": Out(1),
                "geometry": In(Geometry),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "entry": In(unsigned(exact_log2(parameters.weight_depth))),
                "head_words": In(WALK_WIDTH),
                "received": In(parameters.map_bits),
                "complete": In(1),
                "fetch": Out(FetchRequest(parameters.word_width)),
                "weight_entry": Out(unsigned(exact_log2(parameters.weight_depth))),
                "weights": In(data.ArrayLayout(weights, parameters.pe)),
                "token": Out(Token),
                "halves": Out(data.ArrayLayout(signed(16), parameters.pe)),
                "logits": Out(stream.Signature(signed(32))),
                "logit_index": Out(parameters.class_bits),
                "busy": Out(1),
                "lends": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        stem: Any = SIGNATURE.create()  # asks for nothing
        if not p.levels:
            m.submodules.stem = stem = StemWalker(p)
        m.submodules.head = head = HeadWalker(p)
        macs = Signal(data.StructLayout({"clear": 1, "x": signed(self._form.x_width)}))
        clear = macs.clear
        if p.levels and not p.pointwise:  # there is time before a head's next product
            clear = Signal()
            m.d.sync += clear.eq(macs.clear)
        for channel in range(p.pe):
            port, weights = self.macs[channel], self.weights[channel]
            m.d.comb += [port.clear.eq(clear), port.x.eq(macs.x), port.weights.eq(weights[0])]
        in_head = Signal()  # or pointwise
        self._again = Signal()
        self._walk_entry = Signal.like(self.weight_entry)  # first of the head's walk
        self._first = self.entry if p.resident else Const(0)
        self._pointwise = Const(0)
        if p.pointwise:
            self._pointwise = self.geometry.kind == Kind.POINTWISE
        self._layer = Const(0)
        if p.gates:
            self._layer = in_head & ~self._pointwise & self.geometry.keep
        m.d.comb += [
            stem.start.eq(self.start_stem),
            stem.geometry.eq(self.geometry),
            stem.base.eq(self.base),
            stem.received.eq(self.received),
            stem.complete.eq(self.complete),
            head.geometry.eq(self.geometry),
            head.base.eq(self.base),
            head.words.eq(self.head_words),
            head.grant.eq(self.fetch.grant),
        ]
        if self._apart:
            m.d.comb += [
                stem.grant.eq(self.image.grant),
                self.image.request.eq(stem.request),
                self.image.address.eq(stem.address),
                self.fetch.request.eq(head.request),
                self.fetch.address.eq(head.address),
            ]
        else:
            m.d.comb += [
                stem.grant.eq(self.fetch.grant),
                self.fetch.request.eq(stem.request | head.request),
                self.fetch.address.eq(Mux(in_head, head.address, stem.address)),
            ]
        unit, pace = self._units(m, macs, stem, head, in_head)
        closing, tail = Signal(), Signal(4)
        m.d.comb += self.busy.eq(in_head | stem.busy | closing | (tail != 0))
        ready = ~closing & (~pace.valid | pace.end)
        m.d.comb += [stem.next.eq(ready), head.next.eq(ready)]
        with m.If((stem.taken & stem.last) | (head.taken & head.last)):
            m.d.sync += closing.eq(1)
        with m.If(tail != 0):
            m.d.sync += tail.eq(tail + 1)
        with m.If(unit.closes):
            m.d.sync += tail.eq(1)
        starts = self.start_stem | self.start_head | self.start_pointwise
        m.d.sync += head.again.eq(self.start_head | self.start_pointwise | self._again)
        if p.pointwise:
            with m.If(self._pointwise):
                self._pointwise_results(m, unit, head, macs, closing, tail, in_head)
        with m.If(in_head & ~self._pointwise):
            self._head_results(m, unit, head, macs, closing, tail, in_head)
        if not p.levels:
            with m.If(~in_head):
                self._stem_results(m, unit, stem, macs, closing, tail)
        with m.If(starts):
            m.d.comb += macs.clear.eq(1)
            m.d.sync += in_head.eq(~self.start_stem)
            m.d.sync += [self.weight_entry.eq(self._first), self._walk_entry.eq(self._first)]
        self._choose(m, in_head, tail)
        return m

    def _choose(self, m: Module, in_head: Signal, tail: Signal) -> None:
        """The sums that are handed on, and what is left of them."""
        p = self._parameters
        token = self.logit_index[exact_log2(p.pe) : exact_log2(p.macs)]
        chosen = Signal(range(p.tokens))
        m.d.comb += chosen.eq(Mux(in_head & ~self._layer, token, tail - 3))
        if p.pointwise:
            with m.If(self._pointwise):
                m.d.comb += chosen.eq(self.quarter)
        totals = [self._half(m, channel, chosen) for channel in range(p.pe)]
        m.d.comb += self.logits.payload.eq(Array(totals)[self.logit_index[: exact_log2(p.pe)]])

    def _half(self, m: Module, channel: int, chosen: Signal) -> Signal:
        """A channel's sum; returns it before it is shifted."""
        p, half = self._parameters, self.halves[channel]
        total = Signal(signed(self._form.sum_width), name=f"total_{channel}")
        m.d.sync += total.eq(Array(self.macs[channel].sums)[chosen])
        m.d.comb += half.eq(total >> self._form.stem_shift)
        if p.pointwise:
            with m.If(self._pointwise):
                m.d.comb += half.eq(total >> self._form.point_shift)
        if p.gates:
            kept, sign = total[GATE_SHIFT:], total[-1]
            most = Cat((~sign).replicate(15), sign)
            with m.If(self.geometry.kind == Kind.HEAD):
                m.d.comb += half.eq(Mux(same(kept[15:], sign), kept[:16], most))
        return total

    def _units(
        self, m: Module, macs: Any, stem: Any, head: HeadWalker, in_head: Signal
    ) -> tuple[Any, Any]:
        """Takes words apart into units; returns the signals of the current one, and of the next."""
        p = self._parameters
        flags = ("valid", "end", "closes", "wraps")
        unit = Signal(data.StructLayout({flag: 1 for flag in flags}))
        pace, ends = Signal.like(unit), Signal(data.StructLayout({"last": 1, "wraps": 1}))
        asked, arrived, outside, padded = (Signal() for _ in range(4))
        left = Signal(range(max(8, p.per_word) + 1))
        slots = p.slot_width * LANES
        more = slots * (p.per_word - 1)  # bits of a word that wait, as those of a pixel
        source, rest = Signal(p.word_width), Signal(max(8 * (p.image_channels - 1), more))
        count = Mux(in_head, p.per_word, p.image_channels)
        taken = stem.taken | head.taken
        head_wraps = Mux(self._pointwise, head.last & self.last_four, head.block_end & ~head.last)
        fetched = self.fetch.data
        if self._apart:
            fetched = Mux(in_head, fetched, self.image.data)
        m.d.sync += asked.eq(taken)
        if p.own_stream:  # a word is wide, so a register hands it on
            word, asked_before, beyond, paced = (
                Signal.like(signal) for signal in (self.fetch.data, asked, outside, unit)
            )
            m.d.sync += [
                word.eq(fetched), asked_before.eq(asked), arrived.eq(asked_before),
                beyond.eq(outside), padded.eq(beyond), paced.eq(pace), unit.eq(paced),
            ]  # fmt: skip
            fetched = word
        else:
            m.d.sync += [arrived.eq(asked), padded.eq(outside), unit.eq(pace)]
        with m.If(taken):
            m.d.sync += [
                ends.last.eq(Mux(in_head, head.last, stem.last)),
                ends.wraps.eq(Mux(in_head, head_wraps, stem.last & stem.position_end)),
                outside.eq(~in_head & stem.padded),
                left.eq(count),
            ]
        # Units are asked for at this pace, and are there a cycle later.
        m.d.comb += [
            pace.valid.eq(left != 0),
            pace.end.eq(left == 1),
            pace.closes.eq(pace.end & ends.last),
            pace.wraps.eq(pace.end & ends.wraps),
            source.eq(Mux(arrived, fetched, rest)),
        ]
        with m.If(pace.valid & ~taken):
            m.d.sync += left.eq(left - 1)
        with m.If(unit.valid):
            m.d.sync += rest.eq(Mux(in_head, source[slots:], source[8:]) if more else source[8:])
        if p.pad:
            outer = sum(byte << 8 * colour for colour, byte in enumerate(p.pad))
            with m.If(arrived & padded):
                m.d.comb += source.eq(outer)
        byte = Cat(source[:7], ~source[7]).as_signed()
        block = source if more else fetched
        pixels = [block.word_select(lane, p.slot_width) for lane in range(LANES)]
        residuals = [slot[p.slot_fraction :][: p.residual_width] for slot in pixels]
        lanes = [slot.as_signed() for slot in (pixels if p.gates else residuals)]
        pooled = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
        if p.gates:
            pooled = Mux(self._layer, pooled >> p.gate_drop, pooled >> p.guard)
        with m.If(in_head):
            point = residuals[0].as_signed() << self._form.point_up
            m.d.sync += macs.x.eq(Mux(self._pointwise, point, pooled))
        with m.Else():
            m.d.sync += macs.x.eq(byte << self._form.stem_up)
        with m.If(~unit.valid if p.pad else ~unit.valid | padded):
            m.d.sync += macs.x.eq(0)
        return unit, pace

    def _stem_results(
        self, m: Module, unit: Any, stem: Any, macs: Any, closing: Signal, tail: Signal
    ) -> None:
        """The tokens, from three cycles after the last unit on; then the sums are cleared, and the
        first unit of the next channels comes in the fifth cycle. Where the tokens use the
        multipliers, from four cycles after each on, all this waits for them."""
        p = self._parameters
        wait, last = 6 if p.activation else 0, 2 + p.tokens
        group_end, position_end, row_end = (Signal() for _ in range(3))
        with m.If(stem.taken & stem.last):
            m.d.sync += [
                group_end.eq(stem.group_end),
                position_end.eq(stem.position_end),
                row_end.eq(stem.row_end),
            ]
        with m.If(unit.valid):
            m.d.sync += self.weight_entry.eq(Mux(unit.wraps, self._first, self.weight_entry + 1))
        with m.If(tail == 2 + wait):
            m.d.sync += closing.eq(0)
        m.d.sync += self.lends.eq((tail >= 6) & (tail < 6 + p.tokens) if wait else 0)
        with m.If(tail == last + wait):
            m.d.comb += macs.clear.eq(1)
            m.d.sync += tail.eq(0)
        self._tokens(m, tail, group_end, position_end, row_end)

    def _tokens(
        self, m: Module, tail: Signal, group_end: Any, position_end: Any, row_end: Any
    ) -> None:
        """One for each of a channel's sums, the ends with the last."""
        tokens = self._parameters.tokens
        last = tail == 2 + tokens
        m.d.comb += [
            self.token.valid.eq((tail >= 3) & (tail <= 2 + tokens)),
            self.token.odd.eq((tail == 4) | (tail == 6)),
            self.token.group_end.eq(group_end & last),
            self.token.position_end.eq(position_end & last),
            self.token.row_end.eq(row_end & last),
        ]

    def _pointwise_results(
        self, m: Module, unit: Any, head: Any, macs: Any, closing: Signal, tail: Signal,
        in_head: Signal,
    ) -> None:  # fmt: skip
        """Once four sums are there the issue takes them, two cycles apart. The next walk, of the
        same block or the next, begins with the second: its first product comes after the fourth."""
        upper, chosen = Signal(), Signal()
        m.d.sync += chosen.eq(upper)
        with m.If(chosen):
            m.d.comb += self.macs[0].weights.eq(self.weights[0][1])
        with m.If(unit.valid):
            m.d.sync += upper.eq(~upper)
            with m.If(upper):
                m.d.sync += self.weight_entry.eq(
                    Mux(unit.wraps, self._first, self.weight_entry + 1)
                )
        done = self.last_four & self.last_position
        m.d.comb += [head.follows.eq(~self.hold), head.back.eq(~self.last_four & ~self.hold)]
        with m.If(self.start_pointwise):
            m.d.sync += self.hold.eq(1)
        with m.If(tail == 2):
            m.d.sync += [tail.eq(0), self.hold.eq(0)]
        with m.If(self.issued & (self.quarter == 1)):
            m.d.comb += self._again.eq(~done)
            m.d.sync += [closing.eq(0), in_head.eq(~done)]
        with m.If(self.issued & (self.quarter == 3)):
            m.d.comb += macs.clear.eq(1)
            m.d.sync += self.hold.eq(~done)

    def _head_results(
        self, m: Module, unit: Any, head: Any, macs: Any, closing: Signal, tail: Signal,
        in_head: Signal,
    ) -> None:  # fmt: skip
        """The bias as one more unit, then up to four logits, then the next four classes. A step
        ends with its last four or the last class; the next head step goes on from there. A gate's
        layer has four tokens in place of these."""
        p = self._parameters
        group_base = self._walk_entry
        with m.If(unit.valid):
            after = self.weight_entry + 1
            m.d.sync += self.weight_entry.eq(Mux(unit.wraps, group_base, after))
        with m.If((tail == 1) & ~self._layer):
            m.d.sync += macs.x.eq(1 << p.bias_shift)
            m.d.sync += self.weight_entry.eq(self.weight_entry + 1)
        # A logit is offered in the second cycle of its index, when `total` has it.
        emitting, settled = Signal(), Signal()
        accepted = self.logits.valid & self.logits.ready
        m.d.comb += self.logits.valid.eq(emitting & settled)
        m.d.sync += settled.eq(emitting & ~accepted)
        with m.If((tail == 4) & ~self._layer):
            m.d.sync += [tail.eq(0), group_base.eq(self.weight_entry), emitting.eq(1)]
        quads = Signal(p.class_bits)
        last_quad = quads == self.geometry.columns[: p.class_bits]
        last_class = self.logit_index == p.classes - 1
        step_end = last_quad | (last_class & ~self._layer)
        quad_end = accepted & (last_class | self.logit_index[: exact_log2(p.macs)].all())
        with m.If(accepted):
            m.d.sync += self.logit_index.eq(Mux(last_class, 0, self.logit_index + 1))
        if p.gates:
            quad_end |= self._layer & (tail == 6)
            with m.If(self._layer):
                self._tokens(m, tail, 0, last_quad, 0)
                with m.If(tail == 6):
                    m.d.sync += [tail.eq(0), group_base.eq(self.weight_entry)]
        with m.If(quad_end):
            m.d.sync += [emitting.eq(0), closing.eq(0), in_head.eq(~step_end)]
            m.d.sync += quads.eq(quads + 1)
            m.d.comb += [self._again.eq(~step_end), macs.clear.eq(~step_end)]
            with m.If(step_end):
                m.d.sync += quads.eq(0)
