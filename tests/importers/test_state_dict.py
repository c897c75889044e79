"""A network of PyTorch's own modules comes in by its state dict: the example of docs/import.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bnnhw import datasets, golden
from bnnhw.errors import UserError
from bnnhw.importers import import_state_dict
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.layers import Layer
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import untrained
from tests.golden.naive import Naive
from tests.importers.foreign import MEAN, STD, Foreign, trained

PLAIN = Repair("rsign", activation="prelu")
SETS = replace(PLAIN, binary_sets="adabin")
LAYERS = (
    Layer("b0", 16, 16, stage=0), Layer("b1", 16, 32, 2, stage=1, repair=SETS),
    Layer("b2", 32, 32, stage=1, repair=SETS), Layer("b3", 32, 32, 2, stage=2),
)  # fmt: skip
SPEC = NetworkSpec(
    input=(8, 8, 1), layers=LAYERS, repair=PLAIN, stem_activation="prelu", adabin_padding="zero",
    pad=(78,), formats=NumberFormats(residual_width=12, residual_fraction=7, guard=3),
)  # fmt: skip
NAMES = {
    "stem": "conv1", "stem.norm": "bn1", "stem.activation.negative": "relu.weight",
    "head": "fc", "head.norm": "bn2",
}  # fmt: skip
for at in range(4):
    NAMES |= {
        f"b{at}.weight": f"blocks.{at}.conv.weight", f"b{at}.norm": f"blocks.{at}.bn",
        f"b{at}.activation.negative": f"blocks.{at}.act.weight",
        f"b{at}.stream_norm": f"blocks.{at}.after",
        f"b{at}.binarizer": f"blocks.{at}",
    }  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Foreign:
    images = datasets.load("digits", None, "train")
    return trained(images.pixels, images.labels)


def imported(model: Foreign, spec: NetworkSpec = SPEC, **changes):
    settings = dict(names=NAMES, mean=MEAN, std=STD) | changes
    return import_state_dict(spec, model.state_dict(), **settings)


@torch.no_grad()
def test_a_foreign_network_comes_in_and_its_integers_agree(model):
    parts = [datasets.load("digits", None, split) for split in ("train", "validation", "test")]
    pixels = np.concatenate([part.pixels for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    folded = imported(model)
    theirs = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    ours = real.run(folded, pixels)
    network = lower(folded)
    integers = golden.run(network, pixels)["class"]
    right = [100 * (each == labels).mean() for each in (theirs.argmax(1), ours.argmax(1), integers)]
    assert right[0] > 90 and max(right) - min(right) <= 0.3, right
    assert (integers == theirs.argmax(1)).mean() > 0.99
    assert any((layer.activation.negative < 0).any() for layer in folded.layers)


@torch.no_grad()
def test_what_is_folded_is_the_same_function(model):
    """But for the stem and the head, which become 8-bit, and the padding's half a byte."""
    model = trained(np.zeros((64, 8, 8, 1), np.uint8), np.zeros(64), epochs=0)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bn.bias", "after.bias", "centre")):
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        if name.endswith(("running_var", "after.weight", "distance")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    model.conv1.weight.copy_((model.conv1.weight * 100).round().clamp(-127, 127) / 127)
    model.conv1.weight[:, 0, 0, 0] = 1.0
    model.fc.weight.copy_((model.fc.weight * 100).round() / 127)
    model.fc.weight[0, 0] = 1.0
    model.bn2.running_mean.zero_()
    model.bn2.running_var.fill_(1 - model.bn2.eps)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    got = real.run(imported(model), pixels)
    expected = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.median(np.abs(got - expected)) < 0.02 * expected.std()


def test_its_integers_are_the_definitions(model):
    network = lower(imported(model))
    image = datasets.load("digits", None, "test").pixels[:1]
    taps = golden.run(network, image, "all")
    for name, tensor in Naive(network, image[0]).taps.items():
        assert np.array_equal(taps[name][0], tensor), name


def test_our_own_state_dict_comes_in_as_it_is():
    spec = NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3,
                       repair=Repair("rsign", activation="rprelu",
                                     downsample="conv1x1-8bit"))  # fmt: skip
    model = untrained(spec, 2)
    names = {s.name: f"convolutions.{n}" for n, s in enumerate(spec.convolutions())}
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    ours, theirs = import_state_dict(spec, state, names=names), model.folded()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 8, 2), dtype=np.uint8)
    np.testing.assert_allclose(real.run(ours, pixels), real.run(theirs, pixels), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (dict(names=NAMES | {"head": "classifier"}),
         "missing: classifier.weight .our head.weight.; unknown: fc.bias, fc.weight"),
        (dict(std=()), r"mean=\(0.305,\), std=\(\): give both or none"),
        (dict(mean=(0.3, 0.3)), r"mean=\(0.3, 0.3\): give one for each of 1 colours"),
        (dict(mean=(0.5,)), r"pad=\(78,\): zero padding after .* is byte 127.5; .* pad=\(128,\)"),
        (dict(names=NAMES | {"b1.norm": "blocks.0.bn"}),
         r"blocks.0.bn.weight: is of shape \(16,\), must be \(32,\) \(our b1.norm.weight\)"),
        (dict(spec=replace(SPEC, repair=replace(PLAIN, squeeze_excitation="se"))),
         "b0: squeeze_excitation=se has no names in a state dict"),
        (dict(spec=replace(SPEC, repair=replace(PLAIN, activation_position="before-add"))),
         "b3.stream_norm: folds into an activation after the addition"),
    ],
)  # fmt: skip
def test_what_cannot_come_in_is_named(model, changes, fault):
    with pytest.raises(UserError, match=fault):
        imported(model, **changes)


def test_values_that_are_not_finite_are_named(model):
    state = dict(model.state_dict())
    state["blocks.2.bn.bias"] = torch.full((32,), torch.nan)
    with pytest.raises(UserError, match=r"blocks\.2\.bn\.bias\[0\]=nan: must be finite"):
        import_state_dict(SPEC, state, names=NAMES, mean=MEAN, std=STD)
