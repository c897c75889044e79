"""What leaves the lanes: residual words and words of bits, with their addresses."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.lane import Token
from bnnhw.gateware.memory import ADDRESS_WIDTH, NIBBLES, WriteRequest
from bnnhw.gateware.parameters import GROUP, LANES, EngineParameters


class BlockAddress(wiring.Component):
    """Address of the next word of an output map, which is stored block by block.

    Usually words follow each other. With `single` a position is one pixel, so that a block is
    visited twice in each of two rows of positions: `lane` = 2 * row + column in the block.
    `advance` marks a word written, `position_end` and `row_end` that it ends these. With `strip`
    the map is wider than the rows of positions: `gap` words are left out after each. With `steps`
    words follow each other `apart` words.

    Members
    -------
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the map; with `load`
    single, strip : In(1)               of the step; constant while it runs
    advance : In(1)                     strobe: the word at `address` is written
    position_end, row_end : In(1)       that word ends these; with `advance`
    apart : In(2)                       words to the next, with `steps`; with `advance`
    address : Out(15)                   registered
    lane : Out(range(4))                registered
    """

    load: In(1)
    base: In(unsigned(ADDRESS_WIDTH))
    single: In(1)
    strip: In(1)
    advance: In(1)
    position_end: In(1)
    row_end: In(1)
    apart: In(2)
    address: Out(unsigned(ADDRESS_WIDTH))
    lane: Out(range(LANES))

    def __init__(self, *, gap: int = 0, steps: bool = False) -> None:
        self._gap, self._steps = gap, steps
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block, row = Signal.like(self.address), Signal.like(self.address)
        after = Signal.like(self.address)
        right, lower = Signal(), Signal()
        step = self.apart if self._steps else 1
        if self._gap:
            step = Mux(self.strip & self.row_end, self._gap + 1, step)
        m.d.comb += [after.eq(self.address + step), self.lane.eq(Cat(right, lower))]
        with m.If(self.advance):
            m.d.sync += self.address.eq(after)
            with m.If(self.single & self.position_end):
                m.d.sync += right.eq(~right)
                with m.If(self.row_end):
                    m.d.sync += [right.eq(0), lower.eq(~lower)]
                    with m.If(lower):
                        m.d.sync += [row.eq(after), block.eq(after)]
                    with m.Else():
                        m.d.sync += [self.address.eq(row), block.eq(row)]
                with m.Elif(right):
                    m.d.sync += block.eq(after)
                with m.Else():
                    m.d.sync += self.address.eq(block)
        with m.If(self.load):
            m.d.sync += [self.address.eq(self.base), block.eq(self.base), row.eq(self.base)]
            m.d.sync += [right.eq(0), lower.eq(0)]
        return m


class ResidualWriter(wiring.Component):
    """Packs lane results into words: [channel][lane], slots of 8 or 16 bits.

    `fresh` is high in the first cycle of new results; a word is complete with its last channel
    and is offered at once. It must be granted before the next result arrives. With gates words are
    `apart`, from one to the next.

    Members
    -------
    y : In(4 x slot)                    results
    token : In(Token)                   of `y`
    fresh : In(1)                       the results are new in this cycle
    enable, single, strip : In(1)       of the step; constant while it runs; `enable` writes
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the map; with `load`
    apart : In(2)                       words to the next, with gates
    memory : Out(WriteRequest)          combinational in the cycle of `fresh`, then held
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "y": In(data.ArrayLayout(unsigned(parameters.slot_width), LANES)),
                "token": In(Token),
                "fresh": In(1),
                "enable": In(1),
                "single": In(1),
                "strip": In(1),
                "load": In(1),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "apart": In(2),
                "memory": Out(WriteRequest()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        m.submodules.address = address = BlockAddress(gap=p.gaps[2] if p.gaps else 0, steps=p.gates)
        waiting, complete = Signal(), Signal()
        now = self.y.as_value()
        if self._parameters.word_channels == 2:
            even = Signal.like(now)
            with m.If(self.fresh & ~self.token.odd):
                m.d.sync += even.eq(now)
            m.d.comb += [complete.eq(self.token.odd), self.memory.data.eq(Cat(even, now))]
        else:
            m.d.comb += [complete.eq(1), self.memory.data.eq(now)]
        m.d.comb += self.memory.request.eq((self.fresh & complete & self.enable) | waiting)
        m.d.sync += waiting.eq(self.memory.request & ~self.memory.grant)

        nibbles = self._parameters.slot_width // 4
        chosen = Cat((address.lane == lane).replicate(nibbles) for lane in range(LANES))
        mask = chosen.replicate(NIBBLES // len(chosen))
        m.d.comb += [
            self.memory.mask.eq(Mux(self.single, mask, (1 << NIBBLES) - 1)),
            self.memory.address.eq(address.address),
            address.load.eq(self.load),
            address.base.eq(self.base),
            address.single.eq(self.single),
            address.strip.eq(self.strip),
            address.apart.eq(self.apart),
            address.advance.eq(self.memory.grant),
            address.position_end.eq(self.token.position_end),
            address.row_end.eq(self.token.row_end),
        ]
        return m


class BitWriter(wiring.Component):
    """Collects 16 channels' bits of four lanes into a word: [lane][channel].

    The word is offered the cycle after its last channel and must be granted before the next
    channel's bits arrive.

    Members
    -------
    bits : In(4)                        of the lanes
    token : In(Token)                   of `bits`
    fresh : In(1)                       the bits are new in this cycle
    enable, single, strip : In(1)       of the step; constant while it runs; `enable` writes
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the map; with `load`
    memory : Out(WriteRequest)          from the cycle after the group's last bits, then held
    """

    bits: In(LANES)
    token: In(Token)
    fresh: In(1)
    enable: In(1)
    single: In(1)
    strip: In(1)
    load: In(1)
    base: In(unsigned(ADDRESS_WIDTH))
    memory: Out(WriteRequest())

    def __init__(self, *, gap: int = 0) -> None:
        self._gap = gap
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.address = address = BlockAddress(gap=self._gap)
        collected = Signal(data.ArrayLayout(unsigned(GROUP), LANES))
        position_end, row_end = Signal(), Signal()
        with m.If(self.memory.grant):
            m.d.sync += self.memory.request.eq(0)
        with m.If(self.fresh):
            for lane in range(LANES):
                m.d.sync += collected[lane].eq(Cat(collected[lane][1:], self.bits[lane]))
            m.d.sync += [
                position_end.eq(self.token.position_end),
                row_end.eq(self.token.row_end),
            ]
            with m.If(self.token.group_end & self.enable):
                m.d.sync += self.memory.request.eq(1)
        chosen = Cat((address.lane == lane).replicate(GROUP // 4) for lane in range(LANES))
        m.d.comb += [
            self.memory.data.eq(collected),
            self.memory.mask.eq(Mux(self.single, chosen, (1 << NIBBLES) - 1)),
            self.memory.address.eq(address.address),
            address.load.eq(self.load),
            address.base.eq(self.base),
            address.single.eq(self.single),
            address.strip.eq(self.strip),
            address.advance.eq(self.memory.grant),
            address.position_end.eq(position_end),
            address.row_end.eq(row_end),
        ]
        return m
