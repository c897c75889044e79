"""Real numbers of a folded network against the modules they were folded from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bnnhw.errors import UserError
from bnnhw.network import real
from bnnhw.network.folded import FoldedActivation, after_affine, before_affine
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn import untrained
from tests.layer_lists import LAYERS, MIXED

SPECS = {
    "plain": dict(),
    "rprelu, averages": dict(
        repair=Repair("rsign", activation="rprelu", downsample="avgpool-duplicate")
    ),
    "adabin with zeros": dict(
        repair=Repair(binary_sets="adabin", double_residual=False, activation="maxout"),
        adabin_padding="zero", stem_activation="prelu",
    ),
    "thermometer": dict(
        repair=Repair(stem="thermometer", downsample="conv1x1-8bit", ensemble="features-2"),
        levels=(8, 90, 130, 200), pad=(7, 200),
    ),
    "gates, minus-one": dict(
        repair=Repair(squeeze_excitation="se", padding="minus-one", scaling="spatial"),
        formats=NumberFormats(residual_fractions=(4, 3, 5)),
    ),
}  # fmt: skip


def test_it_is_the_float_model_of_layers_that_differ():
    test_it_is_the_float_model(dict(layers=LAYERS, adabin_padding="zero", formats=MIXED.formats))


@torch.no_grad()
@pytest.mark.parametrize("settings", SPECS.values(), ids=SPECS)
def test_it_is_the_float_model(settings):
    shape = dict(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3)
    spec = NetworkSpec(**{**shape, **settings})
    model = untrained(spec, 3)
    images = np.random.default_rng(0).integers(0, 256, (60, 9, 8, 2), dtype=np.uint8)
    got = real.run(model.folded(), images, rounded=True)
    expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    close = np.abs(got - expected).max(1) < 1e-3  # else a value lay on the edge of a step
    assert close.mean() > 0.8 and expected.std() > 0.1


def test_every_stream_is_kept_and_images_are_checked():
    spec = NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3)
    network, streams = untrained(spec).folded(), {}
    images = np.zeros((2, 9, 8, 2), np.uint8)
    rough = real.run(network, images, keep=lambda name, x: streams.update({name: x}))
    assert list(streams) == ["stem", *(s.name for s in spec.convolutions() if s.shortcut)]
    assert streams["stage2.0.conv2"].shape == (2, 3, 2, 10)
    assert not np.array_equal(rough, real.run(network, images, rounded=True))
    with pytest.raises(UserError, match=r"images: needs uint8 \(N, 9, 8, 2\), has float64"):
        real.run(network, images.astype(float))


def test_normalisations_around_an_activation_are_one_activation():
    rng = np.random.default_rng(0)
    part = FoldedActivation(*rng.normal(size=(4, 6)))
    gain, offset = rng.normal(size=(2, 6))
    gain[2] = 0
    x = rng.normal(0, 3, (100, 6))

    def run(part, x):
        slope = np.where(x >= part.shift_in, part.positive, part.negative)
        return slope * (x - part.shift_in) + part.shift_out

    np.testing.assert_allclose(
        run(after_affine(part, gain, offset), x), run(part, gain * x + offset)
    )
    np.testing.assert_allclose(run(before_affine(part, gain, offset), x),
                               gain * run(part, x) + offset)  # fmt: skip
    np.testing.assert_allclose(run(after_affine(None, gain, offset), x), gain * x + offset)


def test_numbers_that_are_not_finite_are_named():
    network = untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(8, 8, 1))).folded()
    offset = network.layers[2].offset.copy()
    offset[1] = np.nan
    layers = list(network.layers)
    layers[2] = replace(layers[2], offset=offset)
    with pytest.raises(UserError, match=r"stage1\.0\.conv1\.offset\[1\]=nan: must be finite"):
        replace(network, layers=tuple(layers))
    with pytest.raises(UserError, match="layers: there are 5, the spec has 6"):
        replace(network, layers=network.layers[:-1])
