"""QONNX: networks of Brevitas's layers come in through both exporters and as modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brevitas.export import export_qonnx

from bnnhw import golden
from bnnhw.errors import UserError
from bnnhw.importers import import_brevitas, import_qonnx
from bnnhw.importers.assemble import layer_names
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.spec import NumberFormats
from tests.importers.brevitas_network import BYTE, MEAN, STD, Headed, normalised, random

FORMATS = NumberFormats(residual_width=12, residual_fraction=7, guard=3)
GIVEN = dict(mean=MEAN, std=STD, formats=FORMATS)
KINDS = [
    dict(),
    dict(act="none"),
    dict(act="relu", norm=True),
    dict(act="leaky", bits="norm"),
    dict(act="rprelu", shortcut="average"),
    dict(act="where", shortcut="conv8"),
    dict(act="prelu", shortcut="conv1", norm=True),
    dict(act="prelu", before=True, shortcut="behind"),
    dict(act="rprelu", first=True),
    dict(bits="below"),
    dict(bits="clip", first=True),
    dict(bits="zeros"),
    dict(bits="sets", first=True),
    dict(bits="minus"),
    dict(bits="sets", sets=True),
    dict(sets=True, first=True, act="relu"),
]


def names_of(kind):
    return " ".join(f"{name}={value}" for name, value in kind.items()) or "prelu"


def pixels(count=40):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


@torch.no_grad()
def theirs(model, images):
    logits = model(normalised(torch.from_numpy(images)))
    return getattr(logits, "value", logits).numpy()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS, ids=names_of)
def test_what_comes_in_is_the_same_function(kind):
    model, images = random(1, **kind), pixels()
    network = import_brevitas(model, (8, 8, 1), **GIVEN)
    expected = theirs(model, images)
    assert np.abs(real.run(network, images) - expected).max() < 1e-5 * np.abs(expected).max()
    assert network.spec.pad == (BYTE,)
    integers = golden.run(lower(network), images)["head.logits"]
    assert np.corrcoef(integers.ravel(), expected.ravel())[0, 1] > 0.9


def import_(model, dynamo):
    """From memory; TorchScript's with a batch of any size."""
    image, lines = normalised(torch.from_numpy(pixels(1))), []
    given = dict(dynamo=True, optimize=True)
    if not dynamo:
        given = dict(dynamo=False, input_names=["image"], dynamic_axes={"image": {0: "N"}})
    return import_qonnx(export_qonnx(model, image, **given), tell=lines.append, **GIVEN), lines


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
@pytest.mark.parametrize("head", ["view", "flatten", "norm", "sum", "matmul", "conv"])
def test_heads(head, dynamo):
    model = Headed(head)
    network, lines = import_(model, dynamo)
    expected = theirs(model, pixels())
    off = np.abs(real.run(network, pixels()) - expected).max() / np.abs(expected).max()
    if head == "conv":  # its real weights are no multiples of one step
        assert off < 0.01 and len(lines) == 1 and "head: weights are rounded to 8 bits" in lines[0]
    else:
        assert off < 1e-5 and not lines


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ("conv before", "the output .* is not a linear layer of the means of a map"),
        ("softmax", r"node /Softmax \(Softmax\), after .*Gemm.* before the output: is not under"),
    ],
)
def test_heads_that_are_refused(head, fault):
    with pytest.raises(UserError, match=fault):
        import_(Headed(head), dynamo=False)


def test_colours_of_their_own_normalisation():
    """Each has its own pad; weights that the deviations take off their grid are rounded."""
    mean, std = (100 / 255, 30 / 255, 128 / 255), (0.5, 0.25, 0.3)
    model, lines = random(5, colours=3), []
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    network = import_brevitas(model, (8, 8, 3), mean=mean, std=std, tell=lines.append)
    assert network.spec.pad == (100, 30, 128) and network.spec.input == (8, 8, 3)
    assert len(lines) == 1 and "stem: weights are rounded to 8 bits, by up to 0.39" in lines[0]
    x = (torch.from_numpy(images).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.no_grad():
        logits = model(x.permute(0, 3, 1, 2))
    expected = getattr(logits, "value", logits).numpy()
    assert np.corrcoef(real.run(network, images).ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", [KINDS[5], KINDS[6], KINDS[9], KINDS[12]], ids=names_of)
def test_dynamos_graphs_as_they_are_before_it_optimises_them(kind):
    model, image = random(1, **kind), normalised(torch.from_numpy(pixels(1)))
    network = import_qonnx(export_qonnx(model, image, dynamo=True), **GIVEN)
    expected = theirs(model, pixels())
    assert np.abs(real.run(network, pixels()) - expected).max() < 1e-5 * np.abs(expected).max()


def test_layers_have_the_modules_names():
    found = import_brevitas(random(1), (8, 8, 1), **GIVEN).spec.layers
    assert [layer.name for layer in found] == ["blocks.0.conv", "blocks.1.conv", "blocks.2.conv"]
    odd = ["/a/a.0/Conv", "/a/a.0/Conv", "head", "", "[red] x/ä", "node_Conv_1"]
    names = layer_names(odd)
    assert names == ["a.0_0", "a.0_1", "head_2", "layer_3", "_red_x._", "node_Conv_1"]
