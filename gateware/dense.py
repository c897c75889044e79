"""The 8-bit layers, stem and head, on four multiply-accumulators."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.head import HeadWalker
from bnnhw.gateware.lane import Token, same
from bnnhw.gateware.macs import MAC_WEIGHTS, MacFormat, MacSignature
from bnnhw.gateware.memory import ADDRESS_WIDTH, WORD_WIDTH, FetchRequest
from bnnhw.gateware.parameters import GATE_SHIFT, LANES, MACS
from bnnhw.gateware.program import WALK_WIDTH, Geometry, Kind
from bnnhw.gateware.stem import SIGNATURE, StemWalker


class Dense(wiring.Component):
    """Runs a stem, head or pointwise step: fetches words, feeds the accumulators, hands results on.

    A word is several units: bytes of a pixel in the stem, channels of a block in the head, whose
    four pixels are added up first (so that pooling costs no pass of its own). Weights are read
    one entry a unit, MACS bytes of it. The stem gives its sums, shifted right by `pre_shift`,
    one channel a cycle: `token` a cycle ahead of `half`. The head gives logits. There is no stem
    where the image is stored as the bits of a thermometer. Pointwise, where an entry has two units'
    weights, the issue walks the outputs, on `hold` until four of them are summed up: `half` is
    there a cycle after `issued`, that of the `quarter` at that time. A gate's layer is a head that
    keeps: it has no bias and gives its sums as the stem does, shifted by GATE_SHIFT and saturated.
    With an activation `macs` are the lanes' second multipliers, which they have for their own while
    `lends`.

    Members
    -------
    start_stem, start_head, start_pointwise : In(1)    strobes: a step of this kind begins
    issued : In(1)                      the issue has taken a pointwise sum
    quarter : In(2)                     which of the four sums the issue takes next
    last_four, last_position : In(1)    these four are the position's last; it is the step's last
    hold : Out(1)                       pointwise: four sums are not there yet
    geometry : In(Geometry)             of the step; constant while it runs
    base : In(15)                       word address of the map; constant while it runs
    head_words : In(14)                 words of the map, or pointwise of the block, less one
    received, complete : In(9), In(1)   rows of the image in memory; all are
    fetch : Out(FetchRequest)           reads the map
    weight_entry : Out(entry)           of the weight buffer
    weights : In(MAC_WEIGHTS)           of that entry, a cycle later; two with pointwise
    token : Out(Token)                  of the next cycle's `half`; stem and gates
    half : Out(signed 16)               a sum, shifted right
    logits : Out(stream of signed 32 bits)    the head's
    logit_index : Out(8)                class of the logit on offer
    macs : Out(MacSignature)            the multiply-accumulators
    lends : Out(1)                      tokens of the stem are in the lanes' second multipliers
    busy : Out(1)                       from the cycle after a start to the last result
    """

    def __init__(self, parameters):
        self._parameters, self._form = parameters, MacFormat.of(parameters)
        super().__init__(
            {
                "macs": Out(MacSignature(self._form)),
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
                "head_words": In(WALK_WIDTH),
                "received": In(9),
                "complete": In(1),
                "fetch": Out(FetchRequest()),
                "weight_entry": Out(unsigned(exact_log2(parameters.weight_depth))),
                "weights": In(data.ArrayLayout(MAC_WEIGHTS, 1 + parameters.pointwise)),
                "token": Out(Token),
                "half": Out(signed(16)),
                "logits": Out(stream.Signature(signed(32))),
                "logit_index": Out(8),
                "busy": Out(1),
                "lends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self._parameters
        stem = SIGNATURE.create()  # asks for nothing
        if not p.levels:
            m.submodules.stem = stem = StemWalker(p)
        m.submodules.head = head = HeadWalker(p)
        macs = self.macs
        in_head = Signal()  # or pointwise
        self._again = Signal()
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
            stem.grant.eq(self.fetch.grant),
            head.grant.eq(self.fetch.grant),
            self.fetch.request.eq(stem.request | head.request),
            self.fetch.address.eq(Mux(in_head, head.address, stem.address)),
            macs.weights.eq(self.weights[0]),
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
            m.d.sync += self.weight_entry.eq(0)
        self._choose(m, macs, in_head, tail)
        return m

    def _choose(self, m, macs, in_head, tail):
        """The sum that is handed on, and what is left of it."""
        p = self._parameters
        chosen, total = Signal(range(MACS)), Signal(signed(self._form.sum_width))
        m.d.comb += [
            chosen.eq(Mux(in_head & ~self._layer, self.logit_index[:2], tail - 3)),
            self.half.eq(total >> self._form.stem_shift),
            self.logits.payload.eq(total),
        ]
        if p.pointwise:
            with m.If(self._pointwise):
                m.d.comb += [chosen.eq(self.quarter), self.half.eq(total >> self._form.point_shift)]
        m.d.sync += total.eq(Array(macs.sums)[chosen])
        if p.gates:
            kept, sign = total[GATE_SHIFT:], total[-1]
            most = Cat((~sign).replicate(15), sign)
            with m.If(self.geometry.kind == Kind.HEAD):
                m.d.comb += self.half.eq(Mux(same(kept[15:], sign), kept[:16], most))

    def _units(self, m, macs, stem, head, in_head):
        """Takes words apart into units; returns the signals of the current one, and of the next."""
        p = self._parameters
        flags = ("valid", "end", "closes", "wraps")
        unit = Signal(data.StructLayout({flag: 1 for flag in flags}))
        pace, ends = Signal.like(unit), Signal(data.StructLayout({"last": 1, "wraps": 1}))
        asked, arrived, outside, padded = (Signal() for _ in range(4))
        left = Signal(range(9))
        slots = p.slot_width * LANES
        more = slots * (p.word_channels - 1)  # bits of a word that wait, as those of a pixel
        source, rest = Signal(WORD_WIDTH), Signal(max(8 * (p.image_channels - 1), more))
        count = Mux(in_head, p.word_channels, p.image_channels)
        taken = stem.taken | head.taken
        head_wraps = Mux(self._pointwise, head.last & self.last_four, head.block_end & ~head.last)
        m.d.sync += [asked.eq(taken), arrived.eq(asked), padded.eq(outside), unit.eq(pace)]
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
            source.eq(Mux(arrived, self.fetch.data, rest)),
        ]
        with m.If(pace.valid & ~taken):
            m.d.sync += left.eq(left - 1)
        with m.If(unit.valid):
            m.d.sync += rest.eq(Mux(in_head, source[slots:], source[8:]) if more else source[8:])
        byte = Cat(source[:7], ~source[7]).as_signed()
        block = source if more else self.fetch.data
        slots = [block.word_select(lane, p.slot_width) for lane in range(LANES)]
        residuals = [slot[p.slot_fraction :][: p.residual_width] for slot in slots]
        lanes = [slot.as_signed() for slot in (slots if p.gates else residuals)]
        pooled = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
        if p.gates:
            pooled = Mux(self._layer, pooled >> p.gate_drop, pooled >> p.guard)
        with m.If(in_head):
            point = residuals[0].as_signed() << self._form.point_up
            m.d.sync += macs.x.eq(Mux(self._pointwise, point, pooled))
        with m.Else():
            m.d.sync += macs.x.eq(byte << self._form.stem_up)
        with m.If(~unit.valid | padded):
            m.d.sync += macs.x.eq(0)
        return unit, pace

    def _stem_results(self, m, unit, stem, macs, closing, tail):
        """Four tokens, from three cycles after the last unit on; then the sums are cleared, and the
        first unit of the next four channels comes in the fifth cycle. Where the tokens use the
        multipliers, from four cycles after each on, all this waits for them."""
        wait = 6 if self._parameters.activation else 0
        group_end, position_end, row_end = (Signal() for _ in range(3))
        with m.If(stem.taken & stem.last):
            m.d.sync += [
                group_end.eq(stem.group_end),
                position_end.eq(stem.position_end),
                row_end.eq(stem.row_end),
            ]
        with m.If(unit.valid):
            m.d.sync += self.weight_entry.eq(Mux(unit.wraps, 0, self.weight_entry + 1))
        with m.If(tail == 2 + wait):
            m.d.sync += closing.eq(0)
        m.d.sync += self.lends.eq((tail >= 6) & (tail < 10) if wait else 0)
        with m.If(tail == 6 + wait):
            m.d.comb += macs.clear.eq(1)
            m.d.sync += tail.eq(0)
        self._tokens(m, tail, group_end, position_end, row_end)

    def _tokens(self, m, tail, group_end, position_end, row_end):
        """One for each of four sums, the ends with the last."""
        fourth = tail == 6
        m.d.comb += [
            self.token.valid.eq((tail >= 3) & (tail <= 6)),
            self.token.odd.eq((tail == 4) | fourth),
            self.token.group_end.eq(group_end & fourth),
            self.token.position_end.eq(position_end & fourth),
            self.token.row_end.eq(row_end & fourth),
        ]

    def _pointwise_results(self, m, unit, head, macs, closing, tail, in_head):
        """Once four sums are there the issue takes them, two cycles apart. The next walk, of the
        same block or the next, begins with the second: its first product comes after the fourth."""
        upper, chosen = Signal(), Signal()
        m.d.sync += chosen.eq(upper)
        with m.If(chosen):
            m.d.comb += macs.weights.eq(self.weights[1])
        with m.If(unit.valid):
            m.d.sync += upper.eq(~upper)
            with m.If(upper):
                m.d.sync += self.weight_entry.eq(Mux(unit.wraps, 0, self.weight_entry + 1))
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

    def _head_results(self, m, unit, head, macs, closing, tail, in_head):
        """The bias as one more unit, then up to four logits, then the next four classes. A step
        ends with its last four or the last class; the next head step goes on from there. A gate's
        layer has four tokens in place of these."""
        p = self._parameters
        group_base = Signal.like(self.weight_entry)
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
        quads = Signal.like(self.geometry.columns)
        last_quad = quads == self.geometry.columns
        last_class = self.logit_index == p.classes - 1
        step_end = last_quad | (last_class & ~self._layer)
        quad_end = accepted & (last_class | (self.logit_index[:2] == MACS - 1))
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
                m.d.sync += [group_base.eq(0), quads.eq(0)]
