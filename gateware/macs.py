"""Multiply-accumulators of the 8-bit layers: their port, their widths and a bank of their own."""

from dataclasses import dataclass
from typing import Any

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.parameters import GATE_SHIFT, LANES, EngineParameters

X_WIDTH, SUM_WIDTH = 16, 32  # that a DSP block has
MAC_WEIGHTS = data.ArrayLayout(signed(8), LANES)


@dataclass(frozen=True)
class MacFormat:
    """Widths of the accumulators' numbers, and shifts of their sums.

    Operands of the lesser shift are shifted up, where the multipliers have room, so that the sums
    of stem, shortcut and gates are shifted alike. Gates' have no room.

    x_width, sum_width : signed bits of an operand and of a sum.
    stem_up, point_up : bits that a byte of the image, or a shortcut's residual, is shifted up.
    stem_shift, point_shift : bits that are dropped of their sums.
    """

    x_width: int
    sum_width: int
    stem_up: int
    point_up: int
    stem_shift: int
    point_shift: int

    @classmethod
    def of(cls, p: EngineParameters) -> "MacFormat":
        """Returns the formats of an engine with these EngineParameters."""
        stem, gate = 0 if p.levels else p.pre_shift, GATE_SHIFT if p.gates else 0
        point = p.shortcut_shift or 0
        most = max(stem, point, gate)
        stem, point = most if p.levels else stem, point if p.pointwise else most
        stem_up = min(most - stem, X_WIDTH - 8)
        point_up = min(most - point, max(0, X_WIDTH - p.residual_width))
        stem_shift, point_shift = stem + stem_up, point + point_up
        x_width = max(8 + stem_up, p.residual_width + max(2, point_up), p.bias_shift + 2)
        sum_width = min(max(p.sum_width, stem_shift + 16, point_shift + 16), SUM_WIDTH)
        if p.gates:
            x_width, sum_width = max(x_width, 18 - p.gate_drop), SUM_WIDTH
        return cls(x_width, sum_width, stem_up, point_up, stem_shift, point_shift)


class MacSignature(wiring.Signature):
    """A channel's accumulators, which share x, seen by who uses them: sums[i] += x * weights[i].

    There are `tokens` of them; further weights are of none.

    Operands of cycle t are in `sums` in t + 2; x is 0 in cycles without any. `clear` empties the
    sums at the end of its cycle, in which no product may be on its way to them.

    Members
    -------
    clear : Out(1)                      empties the sums at the end of its cycle
    x : Out(signed x_width)             the shared operand; 0 where there is none
    weights : Out(4 x signed 8)         in the cycle of `x`
    sums : In(tokens x signed sum_width)    registered; two cycles after their last operands
    """

    def __init__(self, form: MacFormat, tokens: int = LANES) -> None:
        super().__init__(
            {
                "clear": Out(1),
                "x": Out(signed(form.x_width)),
                "weights": Out(MAC_WEIGHTS),
                "sums": In(data.ArrayLayout(signed(form.sum_width), tokens)),
            }
        )


class MacBank(wiring.Component):
    """`tokens` accumulators, a DSP block each.

    Members
    -------
    macs : the port; see MacSignature.
    """

    def __init__(self, form: MacFormat, tokens: int = LANES) -> None:
        self._tokens = tokens
        super().__init__({"macs": In(MacSignature(form, tokens))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port: Any = self.macs
        x = Signal.like(port.x)
        m.d.sync += x.eq(port.x)
        for index in range(self._tokens):
            weight = Signal(signed(8), name=f"weight_{index}")
            m.d.sync += weight.eq(port.weights[index])
            with m.If(port.clear):
                m.d.sync += port.sums[index].eq(0)
            with m.Else():
                m.d.sync += port.sums[index].eq(port.sums[index] + x * weight)
        return m
