"""The residual lane: scale, add to the residual stream, saturate, threshold."""

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.parameters import FACTOR_FRACTION, FACTOR_WIDTH, LANES


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


def saturate(value, width):
    """`value`, signed, limited to `width` signed bits."""
    top = value[width - 1 :]
    fits = top.all() | ~top.any()
    least, greatest = 1 << (width - 1), (1 << (width - 1)) - 1
    return Mux(fits, value[:width], Mux(value[-1], least, greatest))


class Requantiser(wiring.Component):
    """y = saturate(((r << guard) + (half * scale >> shift) + bias) >> guard).

    Latency 2 cycles to `y`, which is not registered, one result a cycle: with half and scale in
    cycle t, residual and bias are taken in t + 1 and y is there in t + 2.
    With `passes`, r and y are of 16 bits; r is not shifted where `wide_in`, and the sum is
    saturated to 16 bits instead where `wide_out`.
    Golden: bnnhw.golden, requantisation.
    """

    def __init__(self, *, half_width, residual_width, guard, shift, passes=False):
        self._guard, self._shift, self._width = guard, shift, residual_width
        self._passes = passes
        stream = signed(16 if passes else residual_width)
        super().__init__(
            {
                "half": In(signed(half_width)),
                "scale": In(signed(16)),
                "residual": In(stream),
                "bias": In(signed(16)),
                "wide_in": In(1),
                "wide_out": In(1),
                "y": Out(stream),
            }
        )

    def elaborate(self, platform):
        m = Module()
        half = Signal.like(self.half)
        scale = Signal.like(self.scale)
        product = Signal(signed(len(half) + 16))
        base = Signal(signed(max(16, self._width + self._guard) + 1))
        residual = self.residual[: self._width].as_signed() << self._guard
        if self._passes:
            wide = Signal(signed(16))
            m.d.comb += wide.eq(Mux(self.wide_in, self.residual, residual))
            residual = wide
        m.d.sync += [
            half.eq(self.half),
            scale.eq(self.scale),
            product.eq(half * scale),
            base.eq(residual + self.bias),
        ]
        total = Signal(signed(max(len(base), len(product) - self._shift) + 1))
        m.d.comb += total.eq((product >> self._shift) + base)
        y = saturate(total >> self._guard, self._width).as_signed()
        if self._passes:
            y = Mux(self.wide_out, saturate(total, 16).as_signed(), y)
        m.d.comb += self.y.eq(y)
        return m


class Lanes(wiring.Component):
    """Four requantisers, one a pixel of the block, that share scale and bias.

    Accumulators, token and scale come in cycle t; bias and residuals are taken in t + 1, and
    `y`, `bits` and `y_token` follow in t + 3 and stay until the next valid token's. Thresholds
    are taken in t + 3. With `single` all lanes give lane 0's result. Lanes outside an odd map
    give 0. With `scaled`, `operand` is scaled instead of the accumulators, by `negative` instead
    of `scale` where it is below zero; with `spatial` by a pixel's own of `factors` instead.
    """

    def __init__(self, parameters):
        self._parameters = parameters
        residual = signed(parameters.stream_width)
        super().__init__(
            {
                "token": In(Token),
                "single": In(1),
                "wide_in": In(1),
                "wide_out": In(1),
                "scaled": In(1),
                "operand": In(data.ArrayLayout(signed(16), LANES)),
                "negative": In(signed(16)),
                "spatial": In(1),
                "factors": In(data.ArrayLayout(unsigned(FACTOR_WIDTH), LANES)),
                "first_half": In(signed(16)),
                "other_halves": In(data.ArrayLayout(signed(parameters.acc_width), LANES - 1)),
                "scale": In(signed(16)),
                "bias": In(signed(16)),
                "residual": In(data.ArrayLayout(residual, LANES)),
                "threshold": In(signed(16)),
                "y": Out(data.ArrayLayout(residual, LANES)),
                "bits": Out(LANES),
                "y_token": Out(Token),
                "fresh": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self._parameters
        lanes = []
        for lane in range(LANES):
            half = self.other_halves[lane - 1] if lane else self.first_half
            scale = self.scale
            if p.passes:
                operand = self.operand[lane]
                half = Mux(self.scaled, operand, half)
                scale = Mux(self.scaled & operand[-1], self.negative, scale)
            if p.spatial:
                factor = self.factors[lane] << (p.shift - FACTOR_FRACTION)
                scale = Mux(self.spatial, factor, scale)
            m.submodules[f"lane_{lane}"] = unit = Requantiser(
                half_width=16 if p.passes or not lane else p.acc_width,
                residual_width=p.residual_width,
                guard=p.guard,
                shift=p.shift,
                passes=p.passes,
            )
            m.d.comb += [
                unit.wide_in.eq(self.wide_in),
                unit.wide_out.eq(self.wide_out),
                unit.half.eq(half),
                unit.scale.eq(scale),
                unit.bias.eq(self.bias),
                unit.residual.eq(self.residual[lane]),
            ]
            lanes.append(unit.y)

        tokens = [self.token, Signal(Token, name="token_1"), Signal(Token, name="token_2")]
        m.d.sync += [tokens[1].eq(tokens[0]), tokens[2].eq(tokens[1])]
        m.d.sync += self.fresh.eq(tokens[2].valid)
        with m.If(tokens[2].valid):
            m.d.sync += self.y_token.eq(tokens[2])
            for lane, y in enumerate(lanes):
                m.d.sync += self.y[lane].eq(Mux(self.single, lanes[0], y))
                if p.odd_maps:
                    row, column = divmod(lane, 2)
                    missing = (tokens[2].edge_row & row) | (tokens[2].edge_column & column)
                    with m.If(missing & ~self.single):
                        m.d.sync += self.y[lane].eq(0)
        for lane in range(LANES):
            bit = self.y[lane] >= self.threshold if p.thresholds else ~self.y[lane][-1]
            m.d.comb += self.bits[lane].eq(bit)
        return m
