"""Real numbers as integers: each against the function it stands for, at its ends and edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.errors import UserError
from bnnhw.lowering import fixed
from bnnhw.network.folded import FoldedActivation, FoldedGate, FoldedShortcut
from bnnhw.network.spec import NetworkSpec, NumberFormats

FORMATS = NumberFormats()  # 8 bits, 4 of them after the point, guard 4, scales of 12


SHAPE = NetworkSpec(8).convolutions()[2]


def of(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_scales_and_constants():
    scale = fixed.scale_of("layer", of(1.0, -0.5, 7.9997), FORMATS)
    assert scale.tolist() == [4096, -2048, 32767] and scale.dtype == np.int32
    fault = r"layer\.scale\[1\]: half a sum is worth 8 residual .* must stay below 7\.99976"
    with pytest.raises(fixed.Overflow, match=fault):
        fixed.scale_of("layer", of(0.0, -8.0), FORMATS)
    assert fixed.wide_of("bias", of(1.0, -2.5), FORMATS, carry=8.0).tolist() == [24, -32]
    with pytest.raises(fixed.Overflow, match=r"bias\[1\]: folds to -2048 residual steps, must"):
        fixed.wide_of("bias", of(0.0, -2048.0), FORMATS)


@pytest.mark.parametrize(
    ("greatest", "step", "expected"),
    [
        (100, 1.0, 0),  # fits and matters
        ((1 << 15) - 1, 1.0, 0),
        (1 << 15, 1.0, 1),  # one bit too many
        (100, 1 / 16, 1),  # two units are an eighth of a step
        (100, 1 / 17, 1),
        (100, 1 / 64, 3),
        (100, 0.0, 16),
    ],
)
def test_sums_lose_bits_that_do_not_fit_or_do_not_matter(greatest, step, expected):
    assert fixed.pre_shift(greatest, step) == expected


def test_stream_thresholds_are_the_least_residual_at_or_above_the_level():
    levels = of(0.0, 0.01, -0.01, 1 / 16, 7.95, 100.0, np.inf, -np.inf, -100.0)
    assert fixed.stream_threshold(levels, FORMATS).tolist() == [
        0, 1, 0, 1, 128, 128, 128, -128, -128,
    ]  # fmt: skip


def test_sum_thresholds_at_the_edges():
    slope, offset = of(0, 0, 1, 1, 1, 0.5, 1e-9), of(1, -1, 0, 18, -19, 0.25, -1)
    got = fixed.sum_threshold(lambda acc: slope * acc + offset, np.zeros(7), 18)
    assert got.tolist() == [-18, 19, 0, -18, 19, 0, 19]
    levels = of(-np.inf, np.inf)
    assert fixed.sum_threshold(lambda acc: acc + of(0, 0), levels, 18).tolist() == [-18, 19]


def test_the_greatest_spatial_factor_takes_the_whole_byte():
    factors, stretch = fixed.spatial(np.array([[0.5, 1.0], [0.0, 1.25]]))
    assert factors.tolist() == [[102, 204], [0, 255]] and factors.dtype == np.uint8
    assert stretch == pytest.approx(255 / 64 / 1.25)
    nothing, stretch = fixed.spatial(np.zeros((2, 3)))
    assert not nothing.any() and stretch == 1


def test_activations():
    part = FoldedActivation(of(0.5, -1.0), of(1.0, 7.99), of(0.25, 0.0), of(-0.125, 2.0))
    assert fixed.activated(of(0.25, -1.0), part).tolist() == [-0.1875, 2.0]
    assert fixed.activated(of(0.75, -3.0), part).tolist() == [0.125, 2.0]
    got = fixed.activation("layer", part, 16.0, FORMATS, carry_in=0.0, carry_out=8.0)
    assert got.shift_in.tolist() == [-128, 256]
    assert got.positive.tolist() == [256, 2045] and got.negative.tolist() == [64, 0]
    assert got.shift_out.tolist() == [-24, 520]
    steep = FoldedActivation(of(0.0), of(1.0), of(-129.0), of(0.0))
    fault = r"layer\.negative\[0\]=-129: slopes must lie in -127\.996 to 127\.996"
    with pytest.raises(UserError, match=fault):
        fixed.activation("layer", steep, 16.0, FORMATS, carry_in=0.0, carry_out=0.0)


def gates_of(part, u: np.ndarray, fraction: int = 8) -> np.ndarray:
    """The integer gates of a map (H, W, C) of wide numbers, as bnnhw.network.integer has them."""
    height, width, channels = u.shape
    even = np.zeros((height + height % 2, width + width % 2, channels), np.int64)
    even[:height, :width] = u
    x = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2] >> 4).sum((0, 1))
    hidden = (part.w1 @ x >> 8).clip(-32768, 32767) * part.scale1 >> fraction
    hidden = (hidden + part.bias1).clip(0, 32767)
    raw = (part.w2 @ (hidden >> 2) >> 8).clip(-32768, 32767) * part.scale2 >> fraction
    return (raw + part.bias2).clip(0, 2**fraction - 1)


@pytest.mark.parametrize("guard", [1, 4, 6])
def test_every_pair_of_thresholds_can_be_compared(guard):
    size = 9
    edges = [(low, high) for low in range(size + 1) for high in range(low, size + 1)]
    inside = [(np.arange(size) >= low) & (np.arange(size) < high) for low, high in edges]
    bits = np.array([*inside, *(~column for column in inside)]).T
    formats = NumberFormats(guard=guard, scale_fraction=14)
    part, act = fixed.two_sided(bits, formats)
    shift = formats.scale_fraction - guard
    half = np.arange(-(size // 2), size // 2 + 1)[:, None]
    t = (half * part.scale >> shift) + part.bias + act.shift_in
    v = (t * np.where(t >= 0, act.positive, act.negative) >> shift) + act.shift_out
    assert np.array_equal((v >> guard).clip(-128, 127) >= part.threshold, bits)


@pytest.mark.parametrize(
    ("shape", "scale_fraction"),
    [((2, 2), 12), ((5, 3), 13), ((8, 8), 12), ((8, 8), 14), ((32, 32), 12)],
)
@pytest.mark.parametrize("size", [1e-6, 0.3, 1.0])
def test_gates_follow_the_real_ones(shape, size, scale_fraction):
    rng = np.random.default_rng(shape[0])
    real = FoldedGate(
        rng.normal(0, size, (4, 16)), rng.normal(0, 0.5, 4),
        rng.normal(0, 2, (16, 4)), rng.normal(0, 1, 16),
    )  # fmt: skip
    formats = replace(FORMATS, scale_fraction=scale_fraction)
    part = fixed.gate("gate", real, shape, formats)
    part.check("gate", (*shape, 16), formats)
    errors = []
    for _ in range(50):
        u = rng.normal(rng.normal(0, 1, 16) * 256, 256, (*shape, 16)).astype(np.int64)
        hidden = np.maximum(0, real.w1 @ u.mean((0, 1)) / 256 + real.b1)
        expected = ((real.w2 @ hidden + real.b2) / 6 + 0.5).clip(0, 1)
        fraction = scale_fraction - formats.guard
        errors.append(gates_of(part, u, fraction) / 2**fraction - expected)
    # The rest is from weights of 8 bits, whose sums are of this size.
    assert np.abs(errors).max() < 0.012 + 0.09 * size
    assert abs(np.mean(errors)) < 0.003


def test_gates_without_weights_stand_half_open():
    nothing = FoldedGate(np.zeros((2, 4)), np.zeros(2), np.zeros((4, 2)), np.zeros(4))
    part = fixed.gate("gate", nothing, (8, 8), FORMATS)
    u = np.random.default_rng(0).integers(-2048, 2048, (8, 8, 4))
    assert set(gates_of(part, u).tolist()) <= {128, 129}  # half a unit is to come from a floor
    huge = FoldedGate(np.full((2, 4), 1e9), np.zeros(2), np.full((4, 2), 1e9), np.zeros(4))
    with pytest.raises(UserError, match="layer.gate: its weights are too great for its gates"):
        fixed.gate("layer.gate", huge, (8, 8), FORMATS)


def test_shortcuts_of_either_kind():
    weights = np.array([[1, -1], [1, 1]], np.int8)
    real = FoldedShortcut(weights, of(0.125, -0.1), of(1.0, 0.0), binary=True)
    part = fixed.shortcut(real, SHAPE, fixed.shortcut_shift(real, SHAPE, FORMATS), FORMATS)
    assert part.pre_shift == 1
    # a unit of half is two of acc, a real unit 16 steps
    assert part.scale.tolist() == [4 * 4096, round(-3.2 * 4096)]
    assert part.bias.tolist() == [256, 0]  # and half a unit, to even
    weights = np.array([[127, -127], [1, 1]], np.int8)
    real = FoldedShortcut(weights, of(0.01, -0.001), of(1.0, 0.0), binary=False)
    part = fixed.shortcut(real, SHAPE, fixed.shortcut_shift(real, SHAPE, FORMATS), FORMATS)
    assert part.pre_shift == 3  # 0.08 of a step; and sums reach 2 * 127 * 128 < 2**15
    assert part.scale.tolist() == [round(0.08 * 4096), round(-0.008 * 4096)]
    lost = 7 / 16  # of a half, on average
    assert part.bias.tolist() == [round((16 + 0.08 * lost) * 16 + 0.5), 0]
