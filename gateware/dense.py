"""The 8-bit layers, stem and head, on four multiply-accumulators."""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, ValueLike, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.head import HeadWalker
from bnnhw.gateware.lane import Token, same
from bnnhw.gateware.memory import ADDRESS_WIDTH, WORD_WIDTH, FetchRequest
from bnnhw.gateware.parameters import GATE_SHIFT, LANES, MACS, EngineParameters
from bnnhw.gateware.program import WALK_WIDTH, Geometry, Kind
from bnnhw.gateware.stem import SIGNATURE, StemWalker

X_WIDTH, SUM_WIDTH = 16, 32  # that a DSP block has
MAC_WEIGHTS = data.ArrayLayout(signed(8), MACS)


class MacBank(wiring.Component):
    """Four accumulators that share x: sums[i] += x * weights[i], a DSP block each.

    Operands of cycle t are in `sums` in t + 2; x is 0 in cycles without any. `clear` empties the
    sums at the end of its cycle, in which no product may be on its way to them.

    Members
    -------
    clear : In(1)                       empties the sums at the end of its cycle
    x : In(signed x_width)              the shared operand; 0 where there is none
    weights : In(4 x signed 8)          in the cycle of `x`
    sums : Out(4 x signed sum_width)    registered; two cycles after their last operands
    """

    def __init__(self, *, x_width: int, sum_width: int = SUM_WIDTH) -> None:
        self._x_width = x_width
        super().__init__(
            {
                "clear": In(1),
                "x": In(signed(x_width)),
                "weights": In(MAC_WEIGHTS),
                "sums": Out(data.ArrayLayout(signed(sum_width), MACS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x = Signal.like(self.x)
        m.d.sync += x.eq(self.x)
        for index in range(MACS):
            weight = Signal(signed(8), name=f"weight_{index}")
            m.d.sync += weight.eq(self.weights[index])
            with m.If(self.clear):
                m.d.sync += self.sums[index].eq(0)
            with m.Else():
                m.d.sync += self.sums[index].eq(self.sums[index] + x * weight)
        return m


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
    busy : Out(1)                       from the cycle after a start to the last result
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
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
                "logits": Out(stream.Signature(signed(SUM_WIDTH))),
                "logit_index": Out(8),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        stem = SIGNATURE.create()  # asks for nothing
        if not p.levels:
            m.submodules.stem = stem = StemWalker(p)
        m.submodules.head = head = HeadWalker(p)
        self._align()
        m.submodules.macs = macs = MacBank(x_width=self._x_width, sum_width=self._sum_width)
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
        unit = self._units(m, macs, stem, head, in_head)
        closing, tail = Signal(), Signal(3)
        m.d.comb += self.busy.eq(in_head | stem.busy | closing | (tail != 0))
        ready = ~closing & (~unit.valid | unit.end)
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

    def _align(self) -> None:
        """Widths, and shifts of the sums: the operands of the lesser shift are shifted up, where
        the multipliers have room, so that the sums of stem, shortcut and gates are shifted alike.
        Gates' have no room."""
        p = self._parameters
        stem, gate = 0 if p.levels else p.pre_shift, GATE_SHIFT if p.gates else 0
        point = p.shortcut_shift or 0
        most = max(stem, point, gate)
        stem, point = most if p.levels else stem, point if p.pointwise else most
        self._stem_up = min(most - stem, X_WIDTH - 8)
        self._point_up = min(most - point, max(0, X_WIDTH - p.residual_width))
        self._stem_shift, self._point_shift = stem + self._stem_up, point + self._point_up
        self._x_width = max(
            8 + self._stem_up, p.residual_width + max(2, self._point_up), p.bias_shift + 2
        )
        self._sum_width = max(p.sum_width, self._stem_shift + 16, self._point_shift + 16)
        self._sum_width = SUM_WIDTH if p.gates else min(self._sum_width, SUM_WIDTH)
        if p.gates:
            self._x_width = max(self._x_width, 18 - p.gate_drop)

    def _choose(self, m: Module, macs: Any, in_head: Signal, tail: Signal) -> None:
        """The sum that is handed on, and what is left of it."""
        p = self._parameters
        chosen, total = Signal(range(MACS)), Signal(signed(self._sum_width))
        m.d.comb += [
            chosen.eq(Mux(in_head & ~self._layer, self.logit_index[:2], tail - 3)),
            self.half.eq(total >> self._stem_shift),
            self.logits.payload.eq(total),
        ]
        if p.pointwise:
            with m.If(self._pointwise):
                m.d.comb += [chosen.eq(self.quarter), self.half.eq(total >> self._point_shift)]
        m.d.sync += total.eq(Array(macs.sums)[chosen])
        if p.gates:
            kept, sign = total[GATE_SHIFT:], total[-1]
            most = Cat((~sign).replicate(15), sign)
            with m.If(self.geometry.kind == Kind.HEAD):
                m.d.comb += self.half.eq(Mux(same(kept[15:], sign), kept[:16], most))

    def _units(self, m: Module, macs: Any, stem: Any, head: HeadWalker, in_head: Signal) -> Any:
        """Takes words apart into units; returns the signals of the current one."""
        p = self._parameters
        flags = ("valid", "end", "closes", "wraps")
        unit = Signal(data.StructLayout({flag: 1 for flag in flags}))
        arrived, last, wraps, padded = (Signal() for _ in range(4))
        left = Signal(range(9))
        slots = p.slot_width * LANES
        more = slots * (p.word_channels - 1)  # bits of a word that wait, as those of a pixel
        source, rest = Signal(WORD_WIDTH), Signal(max(8 * (p.image_channels - 1), more))
        count = Mux(in_head, p.word_channels, p.image_channels)
        taken = stem.taken | head.taken
        head_wraps = Mux(self._pointwise, head.last & self.last_four, head.block_end & ~head.last)
        m.d.sync += arrived.eq(taken)
        with m.If(taken):
            m.d.sync += [
                last.eq(Mux(in_head, head.last, stem.last)),
                wraps.eq(Mux(in_head, head_wraps, stem.last & stem.position_end)),
                padded.eq(~in_head & stem.padded),
                left.eq(count),
            ]
        m.d.comb += [
            unit.valid.eq(left != 0),
            unit.end.eq(left == 1),
            unit.closes.eq(unit.end & last),
            unit.wraps.eq(unit.end & wraps),
            source.eq(Mux(arrived, self.fetch.data, rest)),
        ]
        with m.If(unit.valid):
            m.d.sync += rest.eq(Mux(in_head, source[slots:], source[8:]) if more else source[8:])
            with m.If(~taken):
                m.d.sync += left.eq(left - 1)
        byte = Cat(source[:7], ~source[7]).as_signed()
        block = source if more else self.fetch.data
        places = [block.word_select(lane, p.slot_width) for lane in range(LANES)]
        residuals = [slot[p.slot_fraction :][: p.residual_width] for slot in places]
        lanes = [slot.as_signed() for slot in (places if p.gates else residuals)]
        pooled = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
        if p.gates:
            pooled = Mux(self._layer, pooled >> p.gate_drop, pooled >> p.guard)
        with m.If(in_head):
            point = residuals[0].as_signed() << self._point_up
            m.d.sync += macs.x.eq(Mux(self._pointwise, point, pooled))
        with m.Else():
            m.d.sync += macs.x.eq(byte << self._stem_up)
        with m.If(~unit.valid | padded):
            m.d.sync += macs.x.eq(0)
        return unit

    def _stem_results(
        self, m: Module, unit: Signal, stem: Any, macs: Any, closing: Signal, tail: Signal
    ) -> None:
        """Four tokens, from three cycles after the last unit on; then the sums are cleared, and the
        first unit of the next four channels comes in the fifth cycle."""
        group_end, position_end, row_end = (Signal() for _ in range(3))
        with m.If(stem.taken & stem.last):
            m.d.sync += [
                group_end.eq(stem.group_end),
                position_end.eq(stem.position_end),
                row_end.eq(stem.row_end),
            ]
        with m.If(unit.valid):
            m.d.sync += self.weight_entry.eq(Mux(unit.wraps, 0, self.weight_entry + 1))
        with m.If(tail == 3):
            m.d.sync += closing.eq(0)
        with m.If(tail == 6):
            m.d.comb += macs.clear.eq(1)
            m.d.sync += tail.eq(0)
        self._tokens(m, tail, group_end, position_end, row_end)

    def _tokens(
        self, m: Module, tail: Signal, group_end: ValueLike, position_end: ValueLike,
        row_end: ValueLike,
    ) -> None:  # fmt: skip
        """One for each of four sums, the ends with the last."""
        fourth = tail == 6
        m.d.comb += [
            self.token.valid.eq((tail >= 3) & (tail <= 6)),
            self.token.odd.eq((tail == 4) | fourth),
            self.token.group_end.eq(group_end & fourth),
            self.token.position_end.eq(position_end & fourth),
            self.token.row_end.eq(row_end & fourth),
        ]

    def _pointwise_results(
        self, m: Module, unit: Signal, head: HeadWalker, macs: Any, closing: Signal,
        tail: Signal, in_head: Signal,
    ) -> None:  # fmt: skip
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

    def _head_results(
        self, m: Module, unit: Signal, head: HeadWalker, macs: Any, closing: Signal,
        tail: Signal, in_head: Signal,
    ) -> None:  # fmt: skip
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
