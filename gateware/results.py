"""What a frame gives: its logits, its class and the cycles it took, bit by bit."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.checks import check_held

WORD_BITS = 32


class ResultBit(data.Struct):
    """A bit of a frame's results: 32-bit words, lowest bit first.

    The words are the logits, class 0 first, then the class, then the cycles.
    last : it is the frame's last.
    """

    bit: 1
    last: 1


class Results(wiring.Component):
    """Passes a frame's logits on and adds two words: the class and the cycles.

    The class is the index of the greatest logit, the first of equals. Logits are compared bit by
    bit as they go, which takes 32 cycles more for one that is greater than all before. Cycles are
    counted from `complete`, or from the end of the last frame's count if that is later, until the
    last logit is compared; `timing` is high while they are.

    Members
    -------
    complete : In(1)                    a whole frame is in memory
    logits : In(stream of signed 32 bits)    a frame's, class 0 first; taken 34 cycles after the
                                        offer, 65 where it is the greatest so far, or with stalls
    o : Out(stream of ResultBit)        the logits, the class, the cycles
    timing : Out(1)                     a frame's cycles are counted
    """

    complete: In(1)
    logits: In(stream.Signature(signed(WORD_BITS)))
    o: Out(stream.Signature(ResultBit))
    timing: Out(1)

    def __init__(self, *, classes: int) -> None:
        self._classes = classes
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        best, cycles = Signal(WORD_BITS), Signal(WORD_BITS)
        label, index = Signal(range(self._classes)), Signal(range(self._classes))
        place, logit = Signal(range(WORD_BITS)), Signal()  # in a word; the logit's bit there
        greater = Signal()  # of the bits so far
        move, keep = Signal(), Signal()  # `best` by a bit; the logit's comes in
        begin, finish = Signal(), Signal()  # of the frame's count
        taken, end, o = self.o.valid & self.o.ready, Signal(), self.o.payload
        m.d.comb += [
            logit.eq(self.logits.payload.as_unsigned().bit_select(place, 1)),
            end.eq(place.all()),
            move.eq(taken | keep),
            begin.eq(finish | (~self.timing & self.complete)),
        ]
        check_held(m, platform, "logits", self.logits)

        # Who asked for a logit knows a cycle later that it was taken.
        m.d.sync += [cycles.eq(cycles + 1), self.logits.ready.eq(0)]
        with m.If(begin):
            m.d.sync += [self.timing.eq(self.complete), cycles.eq(1)]
        with m.If(finish):
            m.d.sync += best.eq(cycles)  # where they can wait
        with m.Elif(move):
            m.d.sync += best.eq(Cat(best[1:], Mux(keep, logit, best[0])))
        with m.If(move):
            m.d.sync += place.eq(place + 1)

        with m.FSM():
            with m.State("Logit"):
                m.d.comb += [
                    o.bit.eq(logit),
                    self.o.valid.eq(self.logits.valid & ~self.logits.ready),
                ]
                with m.If(taken & (logit != best[0])):
                    m.d.sync += greater.eq(logit ^ end)  # the last of them is the sign
                with m.If(taken & end):
                    m.next = "Compare"
            with m.State("Compare"):
                m.d.comb += keep.eq(greater | (index == 0))
                with m.If(keep):
                    m.d.sync += label.eq(index)
                with m.If(end | ~keep):
                    m.d.sync += self.logits.ready.eq(1)
                    m.d.sync += [index.eq(index + 1), greater.eq(0)]
                    m.next = "Logit"
                    with m.If(index == self._classes - 1):
                        m.d.comb += finish.eq(1)
                        m.d.sync += index.eq(0)
                        m.next = "Label"
            with m.State("Label"):
                m.d.comb += [o.bit.eq(label[0]), self.o.valid.eq(1)]
                with m.If(taken):
                    m.d.sync += label.eq(label[1:])
                    with m.If(end):
                        m.next = "Cycles"
            with m.State("Cycles"):
                m.d.comb += [o.bit.eq(best[0]), o.last.eq(end), self.o.valid.eq(1)]
                with m.If(taken & end):
                    m.next = "Logit"
        return m
