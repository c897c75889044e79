"""Streams that were never rounded: integers compare what the real numbers do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw import golden
from bnnhw.lowering.align import aligned
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.folded import FoldedActivation, FoldedNetwork
from bnnhw.network.layers import Layer
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import untrained
from tests.golden.test_golden import METHODS

SMALL = NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3)
COARSE = NumberFormats(residual_width=16, residual_fraction=0)


def images(count=12):
    return np.random.default_rng(0).integers(0, 256, (count, 9, 8, 2), dtype=np.uint8)


def far(network: FoldedNetwork) -> FoldedNetwork:
    """The network with thresholds that nothing reaches, so that its bits stay what they are."""
    rng = np.random.default_rng(1)
    layers = tuple(
        replace(layer, thresholds=1000 + rng.random(layer.thresholds.shape))
        for layer in network.layers
    )
    return replace(network, layers=layers)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "binary shortcut"])
def test_what_is_added_is_taken_away_again(method):
    """Streams move by up to half a step of 1.0, and all that follows is as before."""
    spec = replace(SMALL, repair=METHODS[method], stem_activation="maxout")
    network = far(untrained(spec, 1).folded())
    moved = aligned(network, COARSE)
    before, after = [], []
    expected = real.run(network, images(), keep=lambda name, x: before.append(x))
    got = real.run(moved, images(), keep=lambda name, x: after.append(x))
    np.testing.assert_allclose(got, expected, atol=1e-9)
    most = max(np.abs(x - y).max() for x, y in zip(before, after, strict=True))
    assert (0.25 < most <= 0.5 + 1e-9) or (most == 0 and "gates" in method)


SLOPES = {
    "almost zero": (1.0, 0.001), "small": (1.0, 0.03), "zero": (1.0, 0.0), "one": (1.0, 1.0),
    "falling": (-1.0, -0.01),
}  # fmt: skip


@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("level", [0.0, 0.2, -0.4])
def test_bits_are_those_of_the_real_numbers(slopes, level):
    """But of sums that are no further from another bit than three wide numbers."""
    up, down = SLOPES[slopes]
    spec = replace(SMALL, repair=Repair("rsign"), stem_activation="maxout")
    network = untrained(spec, 2).folded()
    identity, act = (
        FoldedActivation(*(np.full(4, part) for part in (0.0, *pair, 0.0)))
        for pair in ((1.0, 1.0), (up, down))
    )
    sums = {}
    plain = replace(network, stem=replace(network.stem, activation=identity))
    real.run(plain, images(), keep=lambda name, x: sums.update({name: x}))
    layers = tuple(replace(each, thresholds=np.full_like(each.thresholds, level))
                   for each in network.layers)  # fmt: skip
    stem = replace(network.stem, activation=act)
    lowered = lower(replace(network, stem=stem, layers=layers, rounded=False))
    bits = golden.run(lowered, images(), "stem.bits")["stem.bits"].astype(bool)
    near = 3 * 2.0 ** -(lowered.spec.formats.residual_fraction + lowered.spec.formats.guard)
    below, here, above = (
        np.where(x >= 0, up, down) * x >= level
        for x in (sums["stem"] - near, sums["stem"], sums["stem"] + near)
    )
    clear = below == above
    assert clear.mean() > 0.9 and np.array_equal(bits[clear], here[clear])


def test_signs_that_a_shortcut_takes_are_those_of_the_real_numbers():
    """After a slope of almost zero; rounded to the nearest most of them would be +1."""
    repair = Repair(downsample="conv1x1-binary")
    spec = NetworkSpec(input=(9, 8, 2), classes=3, repair=repair, stem_activation="prelu",
                       layers=(Layer("b0", 4, 6, 2),))  # fmt: skip
    network = untrained(spec, 2).folded()
    act = replace(network.stem.activation, negative=np.full(4, 1e-3))
    network = replace(network, stem=replace(network.stem, activation=act))
    kept = {}
    real.run(network, images(), keep=lambda name, x: kept.update({name: x}))
    signs = np.where(kept["stem"][:, ::2, ::2] >= 0, 1, -1)
    expected = signs @ network.layers[0].shortcut.weights.T.astype(int)
    alike = []
    for rounded in (False, True):
        integers = lower(replace(network, rounded=rounded))
        taps = golden.run(integers, images(), "b0.shortcut.acc")
        alike.append((taps["b0.shortcut.acc"] == expected).mean())
    assert alike[0] > 0.9 and alike[1] < 0.5, alike
