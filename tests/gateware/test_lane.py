"""Requantisation in the lanes against the golden's, on both sides of every edge."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bnnhw.gateware.lane import Lanes, Requantiser
from bnnhw.gateware.macs import MacFormat
from bnnhw.golden import operations
from bnnhw.network import integer
from bnnhw.network.spec import NumberFormats
from tests.gateware.bench import FORMATS, engine_parameters, play, simulate
from tests.gateware.test_dense import mac_cycles


def golden_results(formats, half, scale, residual, bias, threshold):
    """Returns the golden's y and bits (n, lanes) of arrays (n, lanes) and (n,)."""
    scale, bias, threshold = (np.array(v, np.int32) for v in (scale, bias, threshold))
    half, residual = (
        torch.tensor(v, dtype=torch.int32)[None, :, :, None] for v in (half, residual)
    )
    v = operations.scaled(half, scale, formats) + operations.constant(bias, None)
    y = operations.residual(v + (residual << formats.guard), formats)
    (bits,) = operations.compare(y, (threshold,))
    return y[0, :, :, 0].numpy(), bits[0, :, :, 0].numpy()


def edge_cases(formats, half_width, count, seed):
    """half, scale, residual and bias (n,): random ones and sums round the edges of y."""
    rng = np.random.default_rng(seed)
    least, greatest = integer.saturation(formats.residual_width)
    low, high = integer.saturation(half_width)
    cases = [
        (half, scale, residual, bias)
        for half in (low, high)
        for scale in (-32768, 32767)
        for residual in (least, greatest)
        for bias in (-32768, 32767)
    ]
    one = 1 << formats.guard
    for residual in (least, least + 1, -1, 0, greatest - 1, greatest):
        # y = residual plus a part of a step: just below and at the next whole ones.
        for bias in (-one - 1, -one, -1, 0, one - 1, one, 2 * one):
            cases.append((0, 32767, residual, bias))
            cases.append((-1, 1, residual, bias))  # floor makes this -1, not 0
    for _ in range(count):
        scale = int(rng.integers(-32768, 32768)) >> int(rng.integers(0, 10))
        half = int(rng.integers(low, high + 1)) >> int(rng.integers(0, half_width))
        bias = int(rng.integers(-32768, 32768)) >> int(rng.integers(0, 12))
        cases.append((half, scale, int(rng.integers(least, greatest + 1)), bias))
    return np.array(cases).T


@pytest.mark.parametrize("width", FORMATS)
@pytest.mark.parametrize("half_width", [9, 16])
def test_requantiser_equals_the_golden(width, half_width):
    formats = FORMATS[width]
    half, scale, residual, bias = edge_cases(formats, half_width, 300, seed=width)
    y, _ = golden_results(formats, half[:, None], scale, residual[:, None], bias, bias * 0)
    shift = formats.scale_fraction - formats.guard
    dut = Requantiser(half_width=half_width, residual_width=width, guard=formats.guard, shift=shift)
    cycles = [[] for _ in range(len(half) + 3)]
    for at in range(len(half)):
        cycles[at] += [(dut.half, int(half[at])), (dut.scale, int(scale[at]))]
        cycles[at + 1] += [(dut.residual, int(residual[at])), (dut.bias, int(bias[at]))]
    samples = []

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.y)))

    simulate(dut, bench)
    least, greatest = integer.saturation(width)
    assert {least, least + 1, -1, 0, greatest - 1, greatest} <= set(y[:, 0].tolist())
    assert samples[3:] == y[:, 0].tolist()


@pytest.mark.parametrize("width", FORMATS)
def test_requantiser_takes_and_gives_wide_numbers(width):
    rng = np.random.default_rng(width)
    formats = FORMATS[width]
    half, scale, residual, bias = rng.integers(-32768, 32768, (4, 200)) >> rng.integers(0, 12, 200)
    wide_out, blank = rng.integers(0, 2, 200), rng.random(200) < 0.1
    half[:4], scale[:4] = (-32768, -32768, 32767, 32767), (-32768, 32767, -32768, 32767)
    residual[:4] = bias[:4] = 32767, -32768, -32768, 32767
    low, high = integer.saturation(width)
    shift = formats.scale_fraction - formats.guard
    v = residual + (half * scale >> shift) + bias
    narrow = np.clip(v >> formats.guard, low, high) << formats.guard
    y = np.where(blank, 0, np.where(wide_out, np.clip(v, -32768, 32767), narrow))
    dut = Requantiser(
        half_width=16, residual_width=width, guard=formats.guard, shift=shift, passes=True
    )
    cycles = [[] for _ in range(203)]
    for at in range(200):
        cycles[at] += [(dut.half, int(half[at])), (dut.scale, int(scale[at]))]
        cycles[at + 1] += [(dut.residual, int(residual[at])), (dut.bias, int(bias[at]))]
        cycles[at + 3] += [(dut.wide_out, int(wide_out[at])), (dut.blank, int(blank[at]))]
    samples = []

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, lambda ctx: ctx.get(dut.y)))

    simulate(dut, bench)
    assert {-32768, 32767, low << formats.guard, high << formats.guard} <= set(y.tolist())
    kept = np.where(wide_out, -1, -1 << formats.guard)  # guard bits mean nothing elsewhere
    assert (np.array(samples[3:]) & kept).tolist() == y.tolist()


@pytest.mark.parametrize("scaled", [0, 1])
def test_lanes_scale_operands_by_their_sign(scaled):
    rng = np.random.default_rng(scaled)
    formats = FORMATS[8]
    dut = Lanes(engine_parameters(passes=True))
    operand, half = rng.integers(-400, 400, (2, 60, 4))
    operand[0] = -1, 0, 1, -400
    scale, negative = rng.integers(0, 4096, (2, 60))
    slope = np.where(operand >= 0, scale[:, None], negative[:, None])
    chosen, slope = (operand, slope) if scaled else (half, np.repeat(scale, 4).reshape(60, 4))
    expected = np.stack([
        golden_results(formats, chosen[:, [lane]], slope[:, lane], np.zeros((60, 1), int),
                       np.zeros(60, int), np.zeros(60, int))[0][:, 0]
        for lane in range(4)
    ], axis=1)  # fmt: skip
    cycles = [[(dut.scaled, scaled), (dut.token, {"valid": at < 60})] for at in range(65)]
    for at in range(60):
        cycles[at] += [
            (dut.operand, operand[at].tolist()), (dut.first_half, int(half[at, 0])),
            (dut.other_halves, half[at, 1:].tolist()), (dut.scale, int(scale[at])),
            (dut.negative, int(negative[at])),
        ]  # fmt: skip
    samples = []

    async def bench(ctx):
        probe = [dut.y[lane] for lane in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(y) for y in probe]))

    simulate(dut, bench)
    assert samples[4:64] == (expected << formats.guard).tolist()


@pytest.mark.parametrize("shift", [8, 13])
def test_lanes_scale_operands_by_factors_of_pixels(shift):
    rng = np.random.default_rng(shift)
    dut = Lanes(engine_parameters(passes=True, spatial=True, shift=shift))
    operand = rng.integers(-32768, 32768, (60, 4))
    operand[0] = -32768, 32767, -1, 1
    factors = rng.integers(0, 256, (60, 4))
    factors[0] = 255, 255, 63, 0
    scale, negative = rng.integers(-32768, 32768, (2, 60))
    expected = np.clip(operand * factors >> 6, -32768, 32767)
    cycles = [
        [(dut.scaled, 1), (dut.spatial, 1), (dut.wide_out, 1), (dut.token, {"valid": at < 60})]
        for at in range(65)
    ]
    for at in range(60):
        cycles[at] += [
            (dut.operand, operand[at].tolist()), (dut.factors, factors[at].tolist()),
            (dut.scale, int(scale[at])), (dut.negative, int(negative[at])),
        ]  # fmt: skip
    samples = []

    async def bench(ctx):
        probe = [dut.y[lane] for lane in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(y) for y in probe]))

    simulate(dut, bench)
    assert samples[4:64] == expected.tolist()


def token(rng, *, edge):
    flags = ("shortcut", "odd", "group_end", "position_end", "row_end")
    fields = {flag: int(rng.integers(0, 2)) for flag in flags}
    edges = {flag: int(edge and rng.integers(0, 2)) for flag in ("edge_row", "edge_column")}
    return {"valid": 1} | fields | edges


def junk_cycles(rng, dut, count, *, single, limits):
    """Settings of `count` cycles without a token: every operand is junk."""
    least, greatest = limits

    def junk(low, high, size=None):
        return rng.integers(low, high, size).tolist()

    return [
        [
            (dut.single, single), (dut.token, {"valid": 0, "row_end": 1}),
            (dut.first_half, junk(-32768, 32768)), (dut.other_halves, junk(-512, 512, 3)),
            (dut.scale, junk(-32768, 32768)), (dut.bias, junk(-32768, 32768)),
            (dut.residual, junk(least, greatest + 1, 4)), (dut.threshold, junk(-32768, 32768)),
        ]
        for _ in range(count)
    ]  # fmt: skip


def expected_lanes(y, bits, flags, threshold, *, single):
    """y and bits of a token as the lanes give them: one number for all, or 0 outside the map."""
    want, want_bits = y.tolist(), bits.tolist()
    for lane in range(4):
        gone = (flags["edge_row"] and lane >= 2) or (flags["edge_column"] and lane % 2)
        if single:
            want[lane], want_bits[lane] = want[0], want_bits[0]
        elif gone:
            want[lane], want_bits[lane] = 0, int(0 >= threshold)
    return want, want_bits


@pytest.mark.parametrize("width", FORMATS)
@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize(
    ("single", "odd_maps", "thresholds"),
    [(0, True, True), (0, False, False), (1, True, True), (1, False, False)],
)
def test_lanes(width, single, odd_maps, thresholds, passes):
    """Tokens at random distances; every operand is junk in the cycles it is not wanted in."""
    rng = np.random.default_rng(width + single)
    formats = FORMATS[width]
    parameters = engine_parameters(width, odd_maps=odd_maps, thresholds=thresholds, passes=passes)
    dut = Lanes(parameters)
    half, scale, residual, bias = edge_cases(formats, 10, 60, seed=1)
    count = len(half)
    # Lane 0 has the edge case, the others random operands with its scale and bias.
    halves = np.column_stack([half, rng.integers(-512, 512, (count, 3))])
    least, greatest = integer.saturation(width)
    residuals = np.column_stack([residual, rng.integers(least, greatest + 1, (count, 3))])
    y, _ = golden_results(formats, halves, scale, residuals, bias, bias * 0)
    threshold = np.zeros(count, int)
    if thresholds:  # above, at and below lane 0's y, and never
        threshold = y[:, 0] + np.arange(count) % 3 - 1
        threshold[::7] = greatest + 1
    y, bits = golden_results(formats, halves, scale, residuals, bias, threshold)
    tokens = [token(rng, edge=odd_maps) for _ in range(count)]
    at = np.cumsum(rng.choice([1, 1, 2, 5], count))

    cycles = junk_cycles(rng, dut, at[-1] + 5, single=single, limits=(least, greatest))
    for index, cycle in enumerate(at.tolist()):
        cycles[cycle] += [
            (dut.token, tokens[index]), (dut.scale, int(scale[index])),
            (dut.first_half, int(halves[index, 0])),
            (dut.other_halves, halves[index, 1:].tolist()),
        ]  # fmt: skip
        cycles[cycle + 1] += [
            (dut.bias, int(bias[index])),
            (dut.residual, (residuals[index] << parameters.slot_fraction).tolist()),
        ]  # fmt: skip
        cycles[cycle + 4] += [(dut.threshold, int(threshold[index]))]
    samples = []

    def probe(ctx):
        y_token = ctx.get(dut.y_token.as_value())
        values = [ctx.get(dut.y[lane]) / (1 << parameters.slot_fraction) for lane in range(4)]
        return ctx.get(dut.fresh), values, ctx.get(dut.bits), y_token

    async def bench(ctx):
        samples.extend(await play(ctx, cycles, probe))

    simulate(dut, bench)
    assert [cycle for cycle, sample in enumerate(samples) if sample[0]] == (at + 4).tolist()
    for index, cycle in enumerate(at.tolist()):
        _, values, got_bits, y_token = samples[cycle + 4]
        want, want_bits = expected_lanes(
            y[index], bits[index], tokens[index], threshold[index], single=single
        )
        assert values == want, index
        assert got_bits == sum(bit << lane for lane, bit in enumerate(want_bits)), index
        assert y_token == dut.y_token.shape().const(tokens[index]).as_value().value
        until = at[index + 1] + 4 if index + 1 < count else len(samples)
        for held in samples[cycle + 5 : until]:  # no result in between
            assert held[1] == values and held[3] == y_token


@pytest.mark.parametrize("shift", [8, 13])
@pytest.mark.parametrize("fraction", [0, 1])
def test_lanes_limit_what_a_gates_layer_gives(shift, fraction):
    """All lanes have the number: at least 0 and, as a fraction, of at most `shift` bits."""
    rng = np.random.default_rng(shift)
    dut = Lanes(engine_parameters(passes=True, gates=True, shift=shift))
    half, scale = rng.integers(-32768, 32768, (2, 80)) >> rng.integers(0, 8, 80)
    bias = rng.integers(-32768, 32768, 80) >> rng.integers(0, 8, 80)
    scale[:6] = 0
    bias[:6] = -1, 0, 1, 2**shift - 1, 2**shift, 32767
    top = 2**shift - 1 if fraction else 32767
    expected = np.clip((half * scale >> shift) + bias, 0, top)
    assert {0, top} <= set(expected.tolist())
    same = [(dut.single, 1), (dut.positive, 1), (dut.fraction, fraction), (dut.wide_out, 1)]
    cycles = [[*same, (dut.token, {"valid": at < 80})] for at in range(85)]
    for at in range(80):
        cycles[at] += [
            (dut.first_half, int(half[at])), (dut.scale, int(scale[at])),
            (dut.other_halves, rng.integers(-512, 512, 3).tolist()),
        ]  # fmt: skip
        cycles[at + 1] += [(dut.bias, int(bias[at]))]
    samples = []

    async def bench(ctx):
        probe = [dut.y[lane] for lane in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(y) for y in probe]))

    simulate(dut, bench)
    assert samples[4:84] == [[y] * 4 for y in expected.tolist()]


def activation_case(formats, count, seed):
    """half, residual (n, 4) and the other operands (n,) of an activation, with its results."""
    rng = np.random.default_rng(seed)
    low, high = integer.saturation(formats.residual_width)
    half, residual = rng.integers(-512, 512, (count, 4)), rng.integers(low, high + 1, (count, 4))
    scale, bias = rng.integers(-4096, 4096, count), rng.integers(-4096, 4096, count)
    above, below = rng.integers(0, 1024, (2, count))
    last, threshold = rng.integers(-300, 300, count), rng.integers(low, high + 2, count)
    half[:4], scale[:4], residual[:4] = 511, (32767, -32768, 1, 0), (high, low, -1, 0)
    above[4:8] = below[4:8] = 0, 32767, 32767, 1
    residual[5:7], bias[5:7] = ((high,), (low,)), (32767, -32768)
    part = integer.IntegerActivation(
        *(np.array(v, np.int32) for v in (0 * above, above, below, last))
    )
    v = torch.tensor((half * scale[:, None] >> (formats.scale_fraction - formats.guard))
                     + (residual << formats.guard) + bias[:, None])  # fmt: skip
    y = operations.activate(v.to(torch.int32)[None, :, :, None], part, formats)
    y = operations.residual(y, formats)[0, :, :, 0].numpy()
    return half, residual, scale, bias, above, below, last, threshold, y


def activated_lanes(positive, shift_out, width=8, **changes):
    parameters = engine_parameters(
        activation=True, positive=positive, shift_out=shift_out, shift=8, guard=4, acc_width=11,
        **changes,
    )  # fmt: skip
    return Lanes(replace(parameters, residual_width=width))


@pytest.mark.parametrize("width", [8, 11])
@pytest.mark.parametrize(("positive", "shift_out"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("averages", [False, True])
def test_lanes_multiply_by_slopes_before_they_saturate(width, positive, shift_out, averages):
    formats = NumberFormats(width, 4, scale_fraction=12, guard=4)
    count = 200
    dut = activated_lanes(positive, shift_out, width, averages=averages)
    case = activation_case(formats, count, seed=width)
    half, residual, scale, bias, above, below, last, threshold, y = case
    if not positive:
        above[:] = 256
    if not shift_out:
        last[:] = 8
    t = np.clip((half * scale[:, None] >> 8) + (residual << 4) + bias[:, None], -32768, 32767)
    slope = np.where(t >= 0, above[:, None], below[:, None])
    limits = integer.saturation(width)
    want = np.clip(((t * slope >> 8) + last[:, None]) >> 4, *limits)
    if positive and shift_out:
        assert want.tolist() == y.tolist()  # the golden's
    assert {*limits} <= {*want.ravel().tolist()}
    cycles = [[(dut.token, {"valid": at < count})] for at in range(count + 7)]
    up = 4 if averages else 0
    for at in range(count):
        cycles[at] += [
            (dut.first_half, int(half[at, 0])), (dut.other_halves, half[at, 1:].tolist()),
            (dut.scale, int(scale[at])),
        ]  # fmt: skip
        cycles[at + 1] += [
            (dut.bias, int(bias[at])), (dut.residual, (residual[at] << up).tolist()),
        ]  # fmt: skip
        cycles[at + 3] += [(dut.above, int(above[at])), (dut.below, int(below[at]))]
        cycles[at + 4] += [(dut.shift_out, int(last[at]))]
        cycles[at + 6] += [(dut.threshold, int(threshold[at]))]
    samples = []

    async def bench(ctx):
        probe = [dut.y[lane] for lane in range(4)]
        read = [*probe, dut.bits]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(signal) for signal in read]))

    simulate(dut, bench)
    bits = ((want >= threshold[:, None]) << np.arange(4)).sum(1)
    assert samples[6 : 6 + count] == np.column_stack([want, bits]).tolist()


@pytest.mark.parametrize("shift_out", [False, True])
def test_single_lanes_leave_the_others_what_lane_0_has(shift_out):
    """What the other lanes' constants would make of nothing does not show."""
    dut = activated_lanes(True, shift_out)
    settings = [
        (dut.single, 1), (dut.first_half, 100), (dut.other_halves, [500, -500, 1]),
        (dut.scale, 256), (dut.bias, 0), (dut.above, 256), (dut.below, 256),
        (dut.shift_out, 16 * 60), (dut.token, {"valid": 1}),
    ]  # fmt: skip
    samples = []

    async def bench(ctx):
        probe = [dut.y[lane] for lane in range(4)]
        samples.extend(
            await play(ctx, [settings, *[[]] * 7], lambda ctx: [ctx.get(y) for y in probe])
        )

    simulate(dut, bench)
    assert samples[-1] == [66 if shift_out else 6] * 4


def test_the_second_multipliers_accumulate_while_lanes_wait():
    """Sums are a MacBank's, whatever the first multipliers give; then lanes go on as before."""
    rng = np.random.default_rng(4)
    dut = activated_lanes(True, True, bias_shift=12)
    form = MacFormat.of(engine_parameters(bias_shift=12))
    cycles, expected = mac_cycles(rng, dut.macs, form.x_width, (1, 5, 60, 3))
    cycles = [[], [], [], [(dut.macs.clear, 1)], *cycles]
    for settings in cycles:
        settings += [
            (dut.accumulate, 1), (dut.first_half, int(rng.integers(-512, 512))),
            (dut.other_halves, rng.integers(-512, 512, 3).tolist()),
            (dut.scale, int(rng.integers(-32768, 32768))),
            (dut.bias, int(rng.integers(-32768, 32768))),
            (dut.residual, rng.integers(-128, 128, 4).tolist()),
            (dut.above, int(rng.integers(0, 32768))), (dut.below, int(rng.integers(0, 32768))),
            (dut.shift_out, int(rng.integers(-32768, 32768))),
        ]  # fmt: skip
    samples = []

    async def bench(ctx):
        probe = [dut.macs.sums[index] for index in range(4)]
        samples.extend(await play(ctx, cycles, lambda ctx: [ctx.get(total) for total in probe]))

    simulate(dut, bench)
    assert [(at, samples[at + 4]) for at, _ in expected] == expected
