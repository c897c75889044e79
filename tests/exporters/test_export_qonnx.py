"""Export to QONNX: qonnx's executor computes every tensor of the golden model."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

from bnnhw import datasets, export, golden
from bnnhw.errors import UserError
from bnnhw.exporters import export_qonnx
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NetworkSpec, NumberFormats
from bnnhw.nn import checkpoint, untrained
from tests.golden.test_golden import METHODS
from tests.layer_lists import MIXED
from tests.random_networks import random_network

SMALL = NetworkSpec(depth=8, widths=(4, 6, 10), input=(9, 8, 2), classes=3)


def as_input(images: np.ndarray) -> dict:
    return {"input": images.transpose(0, 3, 1, 2).astype(np.float32)}


def executed(network: IntegerNetwork, images: np.ndarray, everything: bool) -> dict:
    """What qonnx's executor computes, by tensor."""
    model = ModelWrapper(export_qonnx(network, batch=len(images)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of values that are not what their annotation says
        return execute_onnx(model, as_input(images), return_full_exec_context=everything)


def check(network: IntegerNetwork, images: np.ndarray) -> None:
    """Every tensor, to the last bit."""
    taps = golden.run(network, images, "all")
    got = executed(network, images, everything=True)
    for name in golden.tap_names(network.spec)[:-1]:
        expected = taps[name].astype(np.float64)
        if ".bits" in name:
            expected = 2 * expected - 1
        if expected.ndim == 4 and not name.endswith((".hidden", ".gate")):
            expected = expected.transpose(0, 3, 1, 2)
        assert np.array_equal(np.float64(got[name]), expected.reshape(got[name].shape)), name


def images(spec: NetworkSpec, count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *spec.input), dtype=np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method):
    spec = replace(SMALL, repair=METHODS[method])
    check(random_network(spec, seed=1, loud=2.0, extremes=0.05), images(spec))


SPECS = {
    "mixed layers": (MIXED, {}),
    "two-sided": (replace(SMALL, repair=METHODS["after-add single"]), dict(two_sided=1.0)),
    "exponents": (replace(SMALL, repair=METHODS["8-bit shortcut"]), dict(exponents=True)),
    "16 bits": (
        replace(SMALL, formats=NumberFormats(residual_width=16, residual_fraction=8)), {},
    ),
    "pad": (replace(SMALL, pad=(3, 250), stem_activation="maxout"), {}),
    "thermometer's pad": (
        replace(SMALL, repair=METHODS["thermometer"], pad=(3, 250), levels=(1, 7, 99, 255)), {},
    ),
    "adabin's zero": (
        replace(SMALL, repair=METHODS["adabin"], adabin_padding="zero", input=(8, 9, 1)), {},
    ),
    "fractions": (
        replace(SMALL, repair=METHODS["averages"], input=(8, 9, 1),
                formats=NumberFormats(residual_fractions=(7, 0, 3), guard=2)), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", range(2))
def test_what_else_a_spec_may_have(name, seed):
    spec, given = SPECS[name]
    network = random_network(spec, seed=seed, loud=1.0 + 3 * seed, extremes=0.1, **given)
    check(network, images(spec, seed=seed))


def test_sums_that_float32_cannot_hold():
    """An 8-bit shortcut of many channels of 14 bits is summed in float64."""
    formats = NumberFormats(residual_width=14, residual_fraction=7, guard=1)
    spec = NetworkSpec(depth=6, widths=(64, 66), input=(8, 8, 1), formats=formats,
                       repair=METHODS["8-bit shortcut"])  # fmt: skip
    network = lower(untrained(spec, 1))
    (shortcut,) = (part.shortcut for part in network.convolutions if part.shortcut)
    assert (np.abs(shortcut.weights.astype(int)).sum(1) << 13).max() >= 1 << 24
    check(network, images(spec))


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", None, "test").pixels[:100]


def test_the_bundled_networks_logits_of_100_images(digits, tmp_path):
    """By the command, from the file."""
    words = ["resnet8-digits", "--out", str(tmp_path / "net.onnx"), "--batch", "100"]
    result = CliRunner().invoke(export.main, words)
    assert result.exit_code == 0 and "net.onnx: 6 layers, " in result.stdout, result.output
    network = lower(checkpoint.load(checkpoint.bundled("resnet8-digits")))
    expected = golden.run(network, digits)["head.logits"]
    got = execute_onnx(ModelWrapper(str(tmp_path / "net.onnx")), as_input(digits))
    assert np.array_equal(got["head.logits"], expected)


def test_qonnxs_own_passes_leave_it_as_it_is(digits):
    """Cleaned up, with weights folded, it has the same logits."""
    network = lower(checkpoint.load(checkpoint.bundled("resnet8-digits")))
    model = ModelWrapper(export_qonnx(network, batch=10))
    clean = cleanup_model(model, preserve_qnt_ops=False)
    (name,) = (each.name for each in clean.graph.input)
    got = execute_onnx(clean, {name: as_input(digits[:10])["input"]})
    expected = golden.run(network, digits[:10])["head.logits"]
    assert np.array_equal([*got.values()][0], expected)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    network = random_network(SMALL)
    with pytest.raises(UserError, match="QONNX files need onnx, which is not here; pip install"):
        export_qonnx(network)
