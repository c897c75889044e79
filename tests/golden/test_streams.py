"""The range that the residual stream needs, against the definition of one layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnhw import golden
from bnnhw.network.spec import NetworkSpec
from tests.random_networks import random_network

SPEC = NetworkSpec(depth=8, widths=(4, 6, 8), input=(8, 8, 1), classes=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (golden.BATCH + 5, 8, 8, 1), dtype=np.uint8)


def test_the_stems_range_is_that_of_its_numbers():
    network = random_network(SPEC, 1, loud=4.0)
    part, formats = network.stem.requantiser, SPEC.formats
    acc = golden.run(network, IMAGES, ["stem.acc"])["stem.acc"].astype(np.int64)
    half = acc >> network.stem.pre_shift
    v = (half * part.scale >> formats.scale_fraction - formats.guard) + part.bias >> formats.guard
    found = golden.streams(network, IMAGES)[0]
    assert (found.layer, found.stage, found.fraction) == ("stem", 0, 4)
    assert (found.low, found.high) == (v.min() / 16, v.max() / 16)
    assert found.saturated == ((v < -128) | (v > 127)).mean() > 0.01


def test_the_fraction_that_would_hold_just_does():
    loud = golden.streams(random_network(SPEC, 1, loud=4.0), IMAGES)
    assert [each.layer for each in loud] == [
        "stem", *(shape.name for shape in SPEC.convolutions() if shape.shortcut),
    ]  # fmt: skip
    for each in loud:
        fits = [-128 * 2.0**-f <= each.low and each.high < 128 * 2.0**-f for f in range(5, -9, -1)]
        if each.saturated:
            assert each.holds == 5 - fits.index(True) < each.fraction
        else:
            assert each.holds == each.fraction
    named = golden.advice(loud)
    assert len(named) == sum(each.saturated > 0.001 for each in loud) > 0
    quiet = replace(loud[0], saturated=0.0004, holds=3)
    assert golden.advice((quiet,)) == ()
    assert golden.advice((quiet,), 0.0001) == (
        "stem (stage 0): 0.04 % of values saturate; residual_fraction 3 would hold them",
    )
    assert "a greater residual_width" in str(replace(quiet, holds=-1))
