"""Random foreign networks on digits: floats and integers know as many of the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnnhw import datasets, golden
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.layers import Layer
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import BinaryResNet
from bnnhw.nn.activations import Activation
from bnnhw.training.trainer import recalibrate
from tests.importers.foreign import fit

FORMATS = NumberFormats(residual_width=12, residual_fraction=8, guard=3, scale_fraction=14)
KINDS = (
    dict(), dict(activation="maxout"), dict(activation="rprelu"), dict(binary_sets="adabin"),
    dict(padding="minus-one"), dict(activation="prelu", activation_position="before-add"),
    dict(downsample="avgpool-duplicate", activation="maxout"), dict(downsample="conv1x1-8bit"),
)  # fmt: skip


def random_spec(seed: int) -> NetworkSpec:
    """Layers of any methods, strides and widths, a stem of either kind, with or without a pad."""
    rng = np.random.default_rng(seed)
    layers, channels = [], 16
    for at in range(4):
        out = channels + 8 * int(rng.integers(0, 3))
        kind = KINDS[rng.integers(len(KINDS))]
        stride = 2 if at in (1, 3) else 1
        layers.append(Layer(f"l{at}", channels, out, stride, repair=Repair("rsign", **kind)))
        channels = out
    sets = any(layer.repair.binary_sets == "adabin" for layer in layers)
    return NetworkSpec(
        input=(8, 8, 1), layers=tuple(layers), formats=FORMATS, repair=Repair("rsign"),
        pad=(int(rng.integers(0, 256)),) if seed % 2 else (),
        stem_activation=("none", "maxout", "rprelu")[seed % 3],
        adabin_padding="zero" if sets else "centre",
    )  # fmt: skip


def trained(spec: NetworkSpec, seed: int, epochs: int = 8) -> BinaryResNet:
    """The network after a few epochs of digits, its slopes begun with either sign."""
    torch.manual_seed(seed)
    model, images = BinaryResNet(spec), datasets.load("digits", None, "train")
    with torch.no_grad():
        for part in (part for part in model.modules() if isinstance(part, Activation)):
            part.negative[::3] = -0.2
    fit(model, images.pixels, images.labels, epochs)
    recalibrate(model, images.pixels)
    return model.eval()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(3))
def test_floats_and_integers_know_as_many_digits(seed):
    parts = [datasets.load("digits", None, split) for split in ("train", "validation", "test")]
    pixels = np.concatenate([part.pixels for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    network = trained(random_spec(seed), seed).folded()
    floats = real.run(network, pixels, rounded=True).argmax(1)
    integers = golden.run(lower(network), pixels)["class"]
    right = [100 * (classes == labels).mean() for classes in (floats, integers)]
    assert right[0] > 85 and abs(right[0] - right[1]) <= 0.3, right
