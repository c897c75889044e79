"""IntegerNetwork refuses arrays that the device could not hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn import untrained

SPEC = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), classes=3,
                   repair=Repair(double_residual=False))  # fmt: skip


@pytest.fixture
def network():
    return lower(untrained(SPEC))


def with_value(array: np.ndarray, value: int) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] = value
    return changed


def test_weights_must_be_in_range_and_shape(network):
    stem = network.stem
    for array, message in [
        (stem.weights.astype(np.int16), r"stem\.weights: needs int8 \(4, 3, 3, 1\), has int16"),
        (stem.weights[:-1], r"has int8 \(3, 3, 3, 1\)"),
        (with_value(stem.weights, -128), r"stem\.weights\[35\]=-128: must lie in \[-127, 127\]"),
    ]:
        with pytest.raises(UserError, match=message):
            replace(network, stem=replace(stem, weights=array))
    first = network.convolutions[0]
    zero = replace(first, weights=with_value(first.weights, 0))
    with pytest.raises(UserError, match=r"stage0\.0\.conv1\.weights: must be -1 or \+1"):
        replace(network, convolutions=(zero, *network.convolutions[1:]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", 1 << 15, r"stem\.scale\[3\]=32768: must lie in \[-32768, 32767\]"),
        ("bias", -(1 << 15) - 1, r"stem\.bias\[3\]=-32769"),
        ("threshold", 129, r"stem\.threshold\[3\]=129: must lie in \[-128, 128\]"),
    ],
)
def test_requantisers_fit_their_bits(network, name, value, message):
    part = network.stem.requantiser
    part = replace(part, **{name: with_value(getattr(part, name), value)})
    with pytest.raises(UserError, match=message):
        replace(network, stem=replace(network.stem, requantiser=part))


def test_thresholds_lie_within_the_fan_in(network):
    first = network.convolutions[0]
    for value in (-37, 38):
        wrong = replace(first, threshold=with_value(first.threshold, value))
        with pytest.raises(UserError, match=rf"threshold\[3\]={value}: must lie in \[-36, 37\]"):
            replace(network, convolutions=(wrong, *network.convolutions[1:]))


def test_other_rules(network):
    for shift in (-1, 1, 17):
        with pytest.raises(UserError, match="half must fit 16 bits"):
            replace(network, stem=replace(network.stem, pre_shift=shift))
    with pytest.raises(UserError, match="not those of the spec"):
        replace(network, convolutions=network.convolutions[:-1])
    second = replace(network.convolutions[1], requantiser=None)
    parts = list(network.convolutions)
    parts[1] = second
    with pytest.raises(UserError, match="so it needs scale, bias and threshold"):
        replace(network, convolutions=tuple(parts))
    with pytest.raises(UserError, match=r"head\.bias_shift=15"):
        replace(network, head=replace(network.head, bias_shift=15))
