"""What a frame gives: its logits, its class and the cycles it took."""

from amaranth import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

CYCLES_WIDTH = 28  # bits: seconds of any clock


class Results(wiring.Component):
    """Passes a frame's logits on and adds two words: the class and the cycles.

    The class is the index of the greatest logit, the first of equals. Cycles are counted from
    `complete`, or from the last frame's last logit if that is later, to the last logit;
    `timing` is high while they are.

    Members
    -------
    complete : In(1)                    a whole frame is in memory
    logits : In(stream of signed 32 bits)    a frame's, class 0 first; they fit `width` bits
    o : Out(stream of signed 32 bits)   the logits, the class, the cycles
    timing : Out(1)                     a frame's cycles are counted
    """

    def __init__(self, *, classes: int, width: int = 32) -> None:
        self._classes, self._width = classes, width
        super().__init__(
            {
                "complete": In(1),
                "logits": In(stream.Signature(signed(32))),
                "o": Out(stream.Signature(signed(32))),
                "timing": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Between a frame's last logit and its last word the greatest is its cycles.
        wide = max(self._width, CYCLES_WIDTH + 1)
        best = Signal(signed(wide))
        label, index = Signal(range(self._classes)), Signal(range(self._classes))
        cycles, logit = Signal(CYCLES_WIDTH), self.logits.payload[: self._width].as_signed()
        taken = self.o.valid & self.o.ready
        # A logit is compared in the first cycle of its offer and passed on from the second.
        compared, better = Signal(), Signal()
        # Who asked for it knows a cycle later that it was passed on.
        m.d.sync += self.logits.ready.eq(0)
        m.d.sync += better.eq((index == 0) | (logit > best[: self._width].as_signed()))
        with m.If(self.timing):
            m.d.sync += cycles.eq(cycles + 1)
        with m.Elif(self.complete):
            m.d.sync += [self.timing.eq(1), cycles.eq(1)]
        with m.FSM():
            with m.State("LOGITS"):
                m.d.sync += compared.eq(self.logits.valid & ~taken & ~self.logits.ready)
                m.d.comb += [
                    self.o.payload.eq(logit),
                    self.o.valid.eq(self.logits.valid & compared),
                ]
                with m.If(taken):
                    m.d.sync += [self.logits.ready.eq(1), index.eq(index + 1)]
                    with m.If(better):
                        m.d.sync += [label.eq(index), best.eq(logit)]
                    with m.If(index == self._classes - 1):
                        # The next frame's count begins; this one's moves where it can wait.
                        m.d.sync += [index.eq(0), best.eq(cycles)]
                        m.d.sync += [self.timing.eq(self.complete), cycles.eq(1)]
                        m.next = "LABEL"
            with m.State("LABEL"):
                m.d.comb += [self.o.payload.eq(label), self.o.valid.eq(1)]
                with m.If(taken):
                    m.next = "CYCLES"
            with m.State("CYCLES"):
                m.d.comb += [self.o.payload.eq(best), self.o.valid.eq(1)]
                with m.If(taken):
                    m.next = "LOGITS"
        return m
