"""The walk of the 8-bit head over the last feature map, of a 1x1 convolution over a block."""

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import ADDRESS_WIDTH, EngineParameters
from bnnhw.gateware.program import WALK_WIDTH, Geometry


class HeadWalker(wiring.Component):
    """For each four classes: all residual words, in memory order.

    `taken` marks a granted word, whose data come in the second cycle after; `last` that it
    is the last of the map, `block_end` that it is the last of its block. The map is
    `words` + 1 words long. It is walked once for each `again`, given while not busy: from `base`,
    with `follows` from where the last walk ended, or with `back` too from where it began. Then
    `words` + 1 is a multiple of 16 and no more than 256.

    Members
    -------
    again : In(1)                       strobe, while not busy: a walk begins in the next cycle
    geometry : In(Geometry)             of the step; constant while it runs
    base : In(15)                       word address of the map; with `again`
    words : In(14)                      words of the walk, less one; with `again`
    follows, back : In(1)               where the walk begins; with `again`
    next : In(1)                        another word is wanted
    taken : Out(1)                      a word is granted; its data come two cycles later
    last, block_end : Out(1)            it is the walk's last, its block's last; with `taken`
    request, address : Out(1), Out(15)  of the memory; combinational from `next`
    grant : In(1)                       of the memory, in the cycle of `request`
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = parameters
        self._words_per_group = 16 // parameters.per_word
        self._pointwise = parameters.pointwise
        super().__init__(
            {
                "again": In(1),
                "geometry": In(Geometry),
                "base": In(unsigned(ADDRESS_WIDTH)),
                "words": In(WALK_WIDTH),
                "follows": In(1),
                "back": In(1),
                "next": In(1),
                "taken": Out(1),
                "last": Out(1),
                "block_end": Out(1),
                "request": Out(1),
                "grant": In(1),
                "address": Out(unsigned(ADDRESS_WIDTH)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        busy = Signal()
        left = Signal((p.most_words - 1).bit_length())
        word = Signal(p.group_bits + (self._words_per_group - 1).bit_length())
        block_last = Cat(
            Const(self._words_per_group - 1, (self._words_per_group - 1).bit_length()),
            self.geometry.groups[: p.group_bits],
        )
        m.d.comb += [
            self.request.eq(busy & self.next),
            self.taken.eq(self.request & self.grant),
            self.last.eq(left == 0),
            self.block_end.eq(word == block_last),
        ]
        moves, step, again = self.taken, 1, self.again
        if self._pointwise:
            backwards = Cat(Const(0, 4), ~self.words[4:8], Const(-1, ADDRESS_WIDTH - 8))
            moves, step = self.taken | (again & self.back), Mux(again, backwards, 1)
        with m.If(moves):
            m.d.sync += self.address.eq(self.address + step)
        with m.If(self.taken):
            m.d.sync += [left.eq(left - 1), word.eq(word + 1)]
            with m.If(self.block_end):
                m.d.sync += word.eq(0)
            with m.If(self.last):
                m.d.sync += busy.eq(0)
        with m.If(again):
            m.d.sync += [busy.eq(1), word.eq(0), left.eq(self.words)]
        with m.If(again & ~self.follows):
            m.d.sync += self.address.eq(self.base)
        return m
