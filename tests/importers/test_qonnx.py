"""QONNX: networks of Brevitas's layers come in through both exporters and as modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnnhw import golden
from bnnhw.importers import import_brevitas
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.spec import NumberFormats
from tests.importers.brevitas_network import BYTE, MEAN, STD, normalised, random

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
