"""What leaves the lanes: residual words and words of bits, with their addresses."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from bnnhw.gateware.lane import Token
from bnnhw.gateware.memory import NIBBLES, WriteRequest
from bnnhw.gateware.parameters import ADDRESS_WIDTH, GROUP, LANES, EngineParameters
from bnnhw.gateware.program import Walk


def further(address: Value, step: Value, beyond: Value, unit: int) -> Value:
    """Returns the address `step` words and `beyond` times a unit of words on.

    unit : a power of two. A step is less than it, or 0 or 1.
    """
    if unit == 1:  # the step is the carry
        return (Cat(step, address) + Cat(step, beyond))[1:]
    return address + Cat(step, Const(0, exact_log2(unit) - len(step)), beyond)


class BlockAddress(wiring.Component):
    """Address of the next word of an output map, which is stored block by block.

    Usually words follow each other. After a position, or at the end of a row of positions, `walk`
    says how far beyond the next word it goes on. With `single` a position is one pixel, so that a
    block is visited twice in each of two rows of positions: `lane` = 2 * row + column in the block.
    Then the walk applies after the upper rows and the left columns alone, and is back to where the
    row, or the block, begins. `advance` marks a word written, `position_end` and `row_end` that it
    ends these. With `steps` words follow each other `apart` words.

    Parameters
    ----------
    unit : words of a group of 16 channels, in which the walk counts; a power of two

    Members
    -------
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the map; with `load`
    single : In(1)                      of the step; constant while it runs
    walk : In(Walk)                     of the step; constant while it runs
    advance : In(1)                     strobe: the word at `address` is written
    position_end, row_end : In(1)       that word ends these; with `advance`
    apart : In(2)                       words to the next, with `steps`; with `advance`
    address : Out(15)                   registered
    lane : Out(range(4))                registered
    """

    load: In(1)
    base: In(unsigned(ADDRESS_WIDTH))
    single: In(1)
    walk: In(Walk)
    advance: In(1)
    position_end: In(1)
    row_end: In(1)
    apart: In(2)
    address: Out(unsigned(ADDRESS_WIDTH))
    lane: Out(range(LANES))

    def __init__(self, *, unit: int = 1, steps: bool = False) -> None:
        self._unit, self._steps = unit, steps
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        right, lower = Signal(), Signal()
        end, stays, beyond = Signal(), Signal(), Signal(signed(ADDRESS_WIDTH))
        m.d.comb += [
            self.lane.eq(Cat(right, lower)),
            stays.eq(self.single & Mux(self.row_end, lower, right)),
            end.eq(self.position_end & ~stays),
        ]
        with m.If(end):
            m.d.comb += beyond.eq(Mux(self.row_end, self.walk.row, self.walk.position))
        with m.If(self.advance):
            step = self.apart if self._steps else Const(1)
            m.d.sync += self.address.eq(further(self.address, step, beyond, self._unit))
            with m.If(self.single & self.position_end):
                m.d.sync += right.eq(~right)
                with m.If(self.row_end):
                    m.d.sync += [right.eq(0), lower.eq(~lower)]
        with m.If(self.load):
            m.d.sync += [self.address.eq(self.base), right.eq(0), lower.eq(0)]
        return m


# What the lanes, the sequencer and the descriptor say to either writer.
WRITER = {
    "token": In(Token),
    "fresh": In(1),
    "enable": In(1),
    "single": In(1),
    "walk": In(Walk),
    "load": In(1),
    "base": In(unsigned(ADDRESS_WIDTH)),
}


class ResidualWriter(wiring.Component):
    """Packs lane results into words: [channel][lane], slots of 8 or 16 bits.

    `fresh` is high in the first cycle of new results; a word is complete with its last channel
    and is offered at once. It must be granted before the next result arrives. To a memory of the
    stream's own it is offered a cycle later, from a register, and must be granted before the next
    word is complete: a stream that is moved by half a word is read in other cycles. With gates
    words are `apart`, from one to the next.

    Members
    -------
    y : In(pe x 4 x slot)               results
    token : In(Token)                   of `y`
    fresh : In(1)                       the results are new in this cycle
    enable, single : In(1)              of the step; constant while it runs; `enable` writes
    walk : In(Walk)                     of the step; constant while it runs
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the map; with `load`
    apart : In(2)                       words to the next, with gates
    memory : Out(WriteRequest)          combinational with `fresh`, or registered; then held
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        lanes = data.ArrayLayout(unsigned(parameters.slot_width), LANES)
        super().__init__(
            WRITER
            | {
                "y": In(data.ArrayLayout(lanes, parameters.pe)),
                "apart": In(2),
                "memory": Out(WriteRequest(parameters.word_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        m.submodules.address = address = BlockAddress(unit=p.group_words, steps=p.gates)
        waiting, complete = Signal(), Signal()
        now = self.y.as_value()
        if p.halves == 2:
            even = Signal.like(now)
            with m.If(self.fresh & ~self.token.odd):
                m.d.sync += even.eq(now)
            word = Cat(even, now)
            m.d.comb += complete.eq(self.token.odd)
        else:
            word = now
            m.d.comb += complete.eq(1)
        offered, token = self.fresh & complete & self.enable, self.token
        if p.own_stream:
            token = Signal(Token)
            with m.If(self.memory.grant):
                m.d.sync += waiting.eq(0)
            with m.If(offered):
                m.d.sync += [waiting.eq(1), self.memory.data.eq(word), token.eq(self.token)]
            m.d.comb += self.memory.request.eq(waiting)
        else:
            m.d.comb += [self.memory.data.eq(word), self.memory.request.eq(offered | waiting)]
            m.d.sync += waiting.eq(self.memory.request & ~self.memory.grant)

        nibbles, all_nibbles = p.slot_width // 4, p.word_width // 4
        chosen = Cat((address.lane == lane).replicate(nibbles) for lane in range(LANES))
        mask = chosen.replicate(all_nibbles // len(chosen))
        m.d.comb += [
            self.memory.mask.eq(Mux(self.single, mask, (1 << all_nibbles) - 1)),
            self.memory.address.eq(address.address),
            address.load.eq(self.load),
            address.base.eq(self.base),
            address.single.eq(self.single),
            address.walk.eq(self.walk),
            address.apart.eq(self.apart),
            address.advance.eq(self.memory.grant),
            address.position_end.eq(token.position_end),
            address.row_end.eq(token.row_end),
        ]
        return m


class BitWriter(wiring.Component):
    """Collects 16 channels' bits of four lanes into a word: [lane][channel].

    The word is offered the cycle after its last channel and must be granted before the next
    channel's bits arrive.

    Members
    -------
    bits : In(pe x 4)                   of the lanes
    token : In(Token)                   of `bits`
    fresh : In(1)                       the bits are new in this cycle
    enable, single : In(1)              of the step; constant while it runs; `enable` writes
    walk : In(Walk)                     of the step; constant while it runs
    load : In(1)                        strobe: `base` is taken
    base : In(15)                       word address of the map; with `load`
    memory : Out(WriteRequest)          from the cycle after the group's last bits, then held
    """

    def __init__(self, *, pe: int = 1) -> None:
        self._pe = pe
        super().__init__(
            WRITER
            | {
                "bits": In(data.ArrayLayout(unsigned(LANES), pe)),
                "memory": Out(WriteRequest()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.address = address = BlockAddress()
        collected = Signal(data.ArrayLayout(unsigned(GROUP), LANES))
        position_end, row_end = Signal(), Signal()
        with m.If(self.memory.grant):
            m.d.sync += self.memory.request.eq(0)
        with m.If(self.fresh):
            for lane in range(LANES):
                new = Cat(self.bits[channel][lane] for channel in range(self._pe))
                m.d.sync += collected[lane].eq(Cat(collected[lane][self._pe :], new))
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
            address.walk.eq(self.walk),
            address.advance.eq(self.memory.grant),
            address.position_end.eq(position_end),
            address.row_end.eq(row_end),
        ]
        return m
