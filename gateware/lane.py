"""A channel's lanes: scale, add to the residual stream, activate, saturate, threshold."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from bnnhw.gateware.macs import MacFormat, MacSignature
from bnnhw.gateware.parameters import FACTOR_FRACTION, FACTOR_WIDTH, LANES, EngineParameters


class Token(data.Struct):
    """Travels with an output channel of a position from the issue to the writers.

    valid : there is a channel in this stage. shortcut : a residual is added to it.
    odd : it is the upper channel of a memory word. group_end, position_end, row_end : it is the
    last of 16 channels, of its position, of its row of positions.
    edge_column, edge_row : the block's second column or row is outside an odd-sized map.
    """

    valid: 1
    shortcut: 1
    odd: 1
    group_end: 1
    position_end: 1
    row_end: 1
    edge_column: 1
    edge_row: 1


def same(bits: Value, sign: Value) -> Value:
    """Whether all `bits` are as `sign`."""
    return bits == sign.replicate(len(bits))


def saturate(number: Value, width: int, *, zero: Value) -> Value:
    """`number` saturated to signed `width` bits, or 0 where `zero`. Each bit is one of three."""
    sign = number[-1]
    fits = same(number[width - 1 :], sign) & ~zero
    most = (~sign & ~zero).replicate(width - 1)
    return Mux(fits, number[:width], Cat(most, sign & ~zero))


class Requantiser(wiring.Component):
    """y = saturate(((r << guard) + (half * scale >> shift) + bias) >> guard), or 0 where `blank`.

    Latency 3 cycles to `y`, which is not registered, one result a cycle: with half and scale in
    cycle t, residual and bias are taken in t + 1 and y is there in t + 3.
    With `passes`, r and y are wide, of 16 bits; y is saturated to what residual_width bits above
    the guard bits hold, of which the guard bits mean nothing, or, where `wide_out`, to 16 bits.
    There y is at least 0 where `positive` is set, and at most 2**shift - 1 where `fraction` is too.
    With `activation`, y is wide and saturated to 16 bits. With `averages`, r is wide.
    A DSP block multiplies and adds.
    Golden: bnnhw.golden, requantisation.

    Members
    -------
    half, scale : In(signed half_width), In(signed 16)    in cycle t
    residual, bias : In(stream), In(signed 16)    in t + 1
    wide_out, blank, positive, fraction : In(1)    how y is limited; in t + 3
    y : Out(stream)                     combinational; in t + 3
    """

    def __init__(
        self, *, half_width: int, residual_width: int, guard: int, shift: int, passes: bool = False,
        activation: bool = False, averages: bool = False,
    ) -> None:  # fmt: skip
        self._guard, self._shift, self._width = guard, shift, residual_width
        self._passes, self._activation = passes, activation
        self._wide_in = passes or averages
        narrow = residual_width + guard if averages else residual_width
        super().__init__(
            {
                "half": In(signed(half_width)),
                "scale": In(signed(16)),
                "residual": In(signed(16 if passes else narrow)),
                "bias": In(signed(16)),
                "wide_out": In(1),
                "blank": In(1),
                "positive": In(1),
                "fraction": In(1),
                "y": Out(signed(16 if passes or activation else residual_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        half = Signal.like(self.half)
        scale = Signal.like(self.scale)
        base = Signal(signed(max(16, self._width + self._guard) + 1))
        # Product and total are of the same width, as synthesis wants it of an adder in a DSP block.
        product = Signal(signed(max(len(half) + 16, len(base) + self._shift + 1)))
        total = Signal.like(product)
        residual = self.residual if self._wide_in else self.residual << self._guard
        m.d.sync += [
            half.eq(self.half),
            scale.eq(self.scale),
            product.eq(half * scale),
            base.eq(residual + self.bias),
        ]
        m.d.sync += total.eq(product + (base << self._shift))
        if self._passes:
            y = self._wide(total)
        elif self._activation:
            y = saturate(total[self._shift :], 16, zero=self.blank)
        else:
            y = saturate(total[self._shift + self._guard :], self._width, zero=self.blank)
        m.d.comb += self.y.eq(y)
        return m

    def _wide(self, total: Signal) -> Value:
        """The two saturations share all but a few bits."""
        y, sign = total[self._shift :], total[-1]
        narrow = self._width + self._guard
        between = self.wide_out | same(y[narrow - 1 : 15], sign)
        within = ~(self.fraction & y[self._shift : 15].any())
        blank = self.blank | (self.positive & sign)
        fits = same(y[15:], sign) & between & within & ~blank
        most, upper = ~sign & ~blank, Mux(self.wide_out, ~sign, sign) & ~blank
        bits = [most if at < narrow - 1 else upper for at in range(15)]
        bits[self._shift :] = [bit & ~self.fraction for bit in bits[self._shift :]]
        return Mux(fits, y[:16], Cat(bits, sign & ~blank))


class Slope(wiring.Component):
    """A lane's second multiplier: an activation, or one of four multiply-accumulators.

    y = saturate(((t * slope >> shift) + shift_out) >> guard), or 0 where `blank`; slope is
    `above` where t >= 0, else `below`. Latency 2 cycles to `y`, which is not registered, one result
    a cycle: with t and slopes in cycle t, shift_out is taken in t + 1 and y is there in t + 2.
    x is 0 but where `accumulate`; there t must be 0, and sum += x * weight as
    gateware.macs.MacSignature has it.
    Without `positive` slopes are 1.0 from zero up; without `shift_out` that is 2**(guard - 1).
    One DSP block multiplies, adds and accumulates.
    Golden: bnnhw.golden, activation.

    Members
    -------
    t : In(signed 16)                   the wide number; in cycle t
    above, below : In(signed 16)        slopes; in t
    shift_out : In(signed 16)           in t + 1
    blank : In(1)                       y is 0; in t + 2
    y : Out(signed residual_width)      combinational; in t + 2
    accumulate : In(1)                  a cycle before `clear` and the product that it is for
    clear : In(1)                       the sum begins anew
    x, weight : In(signed x_width), In(signed 8)    operands; in the sum two cycles later
    sum : Out(signed sum_width)         registered
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters, self._form = parameters, MacFormat.of(parameters)
        super().__init__(
            {
                "t": In(signed(16)),
                "above": In(signed(16)),
                "below": In(signed(16)),
                "shift_out": In(signed(16)),
                "blank": In(1),
                "y": Out(signed(parameters.residual_width)),
                "accumulate": In(1),
                "clear": In(1),
                "x": In(signed(self._form.x_width)),
                "weight": In(signed(8)),
                "sum": Out(signed(self._form.sum_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        t, slope, total = Signal(signed(16)), Signal(signed(16)), Signal(signed(32))
        above = self.above if p.positive else 1 << p.shift
        chosen = Mux(self.accumulate, self.weight, Mux(self.t[-1], self.below, above))
        accumulates, addend = Signal(), Signal(signed(32))
        last = self.shift_out if p.shift_out else 1 << (p.guard - 1)
        m.d.sync += [
            t.eq(self.t | self.x),
            slope.eq(chosen),
            accumulates.eq(self.accumulate),
            total.eq(t * slope + addend),
        ]
        m.d.comb += [
            addend.eq(Mux(accumulates, Mux(self.clear, 0, self.sum), last << p.shift)),
            self.sum.eq(total),
            self.y.eq(saturate(total[p.shift + p.guard :], p.residual_width, zero=self.blank)),
        ]
        return m


class Lanes(wiring.Component):
    """A channel's four requantisers, one a pixel of the block, that share scale and bias.

    Accumulators, token and scale come in cycle t; bias and residuals are taken in t + 1, and
    `y`, `bits` and `y_token` follow in t + `latency` and stay until the next valid token's.
    Thresholds are taken in t + `latency`. With `single` all lanes give lane 0's result. Lanes
    outside an odd map give 0. Guard bits of a number that is not `wide_out` are 0. With `scaled`,
    `operand` is scaled instead of the accumulators, by `negative` instead of `scale` where it is
    below zero; with `spatial` by a pixel's own of `factors` instead. `positive` and `fraction`
    limit lane 0 as a Requantiser.

    With an activation, slopes (`above`, `below`) are taken in t + 3 and `shift_out` in t + 4; while
    `accumulate` the second multipliers are those of `macs`, and no token may be at t + 3 or t + 4.

    Members
    -------
    token : In(Token)                   in cycle t
    single, wide_out, scaled, spatial : In(1)    of the step; constant while it runs
    positive, fraction : In(1)          of the step; they limit lane 0
    operand : In(4 x signed 16)         what is scaled where `scaled`; in t
    negative : In(signed 16)            scale of an operand below zero; in t
    factors : In(4 x 8 bits)            scales where `spatial`; in t
    first_half : In(signed 16)          lane 0's half accumulator; in t
    other_halves : In(3 x signed acc_width)    those of lanes 1 to 3; in t
    scale : In(signed 16)               in t
    bias : In(signed 16)                in t + 1
    residual : In(4 x stream)           in t + 1
    threshold : In(signed 16)           in t + latency
    y : Out(4 x stream)                 registered; from t + latency on
    bits : Out(4)                       y against the threshold; from t + latency on
    y_token : Out(Token)                the token of `y`; from t + latency on
    fresh : Out(1)                      `y` is new; in t + latency alone
    above, below : In(signed 16)        slopes from zero up and below; in t + 3
    shift_out : In(signed 16)           in t + 4
    accumulate : In(1)                  the second multipliers are those of `macs`
    macs : In(MacSignature)             the multiply-accumulators
    """

    def __init__(self, parameters: EngineParameters) -> None:
        self._parameters = p = parameters
        residual = signed(p.added_width)
        self.latency = 6 if p.activation else 4
        members: dict[str, Any] = {
            "token": In(Token),
            "single": In(1),
            "wide_out": In(1),
            "positive": In(1),
            "fraction": In(1),
            "scaled": In(1),
            "operand": In(data.ArrayLayout(signed(16), LANES)),
            "negative": In(signed(16)),
            "spatial": In(1),
            "factors": In(data.ArrayLayout(unsigned(FACTOR_WIDTH), LANES)),
            "first_half": In(signed(16)),
            "other_halves": In(data.ArrayLayout(signed(p.acc_width), LANES - 1)),
            "scale": In(signed(16)),
            "bias": In(signed(16)),
            "residual": In(data.ArrayLayout(residual, LANES)),
            "threshold": In(signed(16)),
            "y": Out(data.ArrayLayout(signed(p.stream_width), LANES)),
            "bits": Out(LANES),
            "y_token": Out(Token),
            "fresh": Out(1),
        }
        if p.activation:
            members |= {
                "above": In(signed(16)),
                "below": In(signed(16)),
                "shift_out": In(signed(16)),
                "accumulate": In(1),
                "macs": In(MacSignature(MacFormat.of(p), p.tokens)),
            }
        super().__init__(members)

    def _first_half(self) -> Value:
        """As wide as it can be: Yosys (0.70) loses the sign of a product in a DSP block whose
        register has more bits than the operands give it."""
        p = self._parameters
        if p.passes or not p.levels:
            return self.first_half
        return self.first_half[: p.acc_width].as_signed()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        tokens = [self.token]
        for delay in range(1, self.latency):
            tokens.append(Signal(Token, name=f"token_{delay}"))
            m.d.sync += tokens[delay].eq(tokens[delay - 1])
        lanes = [self._lane(m, lane) for lane in range(LANES)]
        if p.activation:
            lanes = [self._slope(m, lane, t) for lane, t in enumerate(lanes)]
        last = tokens[-1]
        m.d.sync += self.fresh.eq(last.valid)
        shared = Signal.like(lanes[0])
        m.d.comb += shared.eq(Mux(self.single, lanes[0], 0))
        with m.If(last.valid):
            m.d.sync += self.y_token.eq(last)
            for lane, y in enumerate(lanes):
                m.d.sync += self.y[lane].eq(y | shared if lane else y)
                if p.passes:
                    with m.If(~self.wide_out):
                        m.d.sync += self.y[lane][: p.guard].eq(0)
                if p.odd_maps:
                    row, column = divmod(lane, 2)
                    missing = (last.edge_row & row) | (last.edge_column & column)
                    with m.If(missing & ~self.single):
                        m.d.sync += self.y[lane].eq(0)
        for lane in range(LANES):
            y = self.y[lane] >> p.slot_fraction
            bit = y >= self.threshold if p.thresholds else ~y[-1]
            m.d.comb += self.bits[lane].eq(bit)
        return m

    def _lane(self, m: Module, lane: int) -> Value:
        """Returns what a lane's Requantiser gives."""
        p = self._parameters
        half = self.other_halves[lane - 1] if lane else self._first_half()
        scale = self.scale
        if p.passes:
            operand = self.operand[lane]
            half = Mux(self.scaled, operand, half)
            scale = Mux(self.scaled & operand[-1], self.negative, scale)
        if p.spatial:
            factor = self.factors[lane] << (p.shift - FACTOR_FRACTION)
            scale = Mux(self.spatial, factor, scale)
        m.submodules[f"lane_{lane}"] = unit = Requantiser(
            half_width=16 if p.passes else len(half),
            residual_width=p.residual_width,
            guard=p.guard,
            shift=p.shift,
            passes=p.passes,
            activation=p.activation,
            averages=p.averages,
        )
        m.d.comb += [
            unit.wide_out.eq(self.wide_out),
            unit.blank.eq(self.accumulate if p.activation else self.single & (lane != 0)),
            unit.positive.eq(self.positive & (lane == 0)),
            unit.fraction.eq(self.fraction & (lane == 0)),
            unit.half.eq(half),
            unit.scale.eq(scale),
            unit.bias.eq(self.bias),
            unit.residual.eq(self.residual[lane]),
        ]
        return unit.y

    def _slope(self, m: Module, lane: int, t: Value) -> Value:
        """Returns what a lane's Slope makes of t."""
        m.submodules[f"slope_{lane}"] = unit = Slope(self._parameters)
        m.d.comb += [
            unit.t.eq(t),
            unit.above.eq(self.above),
            unit.below.eq(self.below),
            unit.shift_out.eq(self.shift_out),
            unit.blank.eq(self.single & (lane != 0)),
            unit.accumulate.eq(self.accumulate),
            unit.clear.eq(self.macs.clear),
        ]
        if lane < self._parameters.tokens:
            m.d.comb += [
                unit.x.eq(self.macs.x),
                unit.weight.eq(self.macs.weights[lane]),
                self.macs.sums[lane].eq(unit.sum),
            ]
        return unit.y
