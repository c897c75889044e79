"""Graphs with random changes: what comes in is what qonnx's executor computes; all else is told."""

from __future__ import annotations

import warnings
from collections import Counter
from random import Random

import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

from bnnhw.errors import UserError
from bnnhw.importers import import_qonnx
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from tests.importers.brevitas_network import normalised, random
from tests.importers.spoiling import spoil
from tests.importers.test_qonnx import GIVEN, KINDS, pixels

IMAGES = pixels(3)


def executed(model: onnx.ModelProto) -> np.ndarray | None:
    """The logits of IMAGES, or None where qonnx cannot run it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clean = cleanup_model(ModelWrapper(model))
            name = clean.graph.input[0].name
            images = normalised(torch.from_numpy(IMAGES)).numpy()[:, None]
            logits = [[*execute_onnx(clean, {name: x}).values()][0] for x in images]
    except Exception:
        return None
    return np.concatenate(logits)


@pytest.fixture(scope="module")
def exported() -> list[bytes]:
    image = torch.zeros(1, 1, 8, 8)
    some = KINDS[:3] + KINDS[5:8]
    return [
        export_qonnx(random(1, **kind), image, dynamo=False).SerializeToString() for kind in some
    ]


@pytest.mark.usefixtures("one_thread")
def test_what_is_spoilt_is_told_or_comes_in_as_what_it_is(exported):
    seen = Counter()
    for seed in range(60):
        rng, model, rounded = Random(seed), onnx.ModelProto(), []
        model.ParseFromString(rng.choice(exported))
        spoil(model, rng)
        given = onnx.ModelProto()
        given.CopyFrom(model)
        try:
            network = import_qonnx(given, tell=rounded.append, **GIVEN)
            lower(network)
        except UserError as told:
            assert "\n" not in str(told) and str(told), seed
            seen["told"] += 1
            continue
        expected = executed(model)
        if expected is None or rounded:
            seen["not compared"] += 1
            continue
        got = real.run(network, IMAGES)
        assert np.abs(got - expected).max() <= 1e-3 * np.abs(expected).max(), seed
        seen["the same"] += 1
    assert seen["told"] > 20 and seen["the same"] > 8, seen
