"""bnnhw import NET.onnx: the command says what is rounded and leaves a model file as any other."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from click.testing import CliRunner

from bnnhw import evaluate, import_
from bnnhw.network import real
from bnnhw.nn import checkpoint
from tests.importers.brevitas_network import MEAN, STD, random
from tests.importers.test_qonnx import pixels, theirs

SPEC = "pad = [78]\n[formats]\nresidual_width = 12\nresidual_fraction = 7\nguard = 3\n"


@pytest.fixture
def folder(tmp_path):
    model = export_qonnx(random(3), torch.zeros(1, 1, 8, 8), dynamo=False)
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


def invoke(folder, *words):
    arguments = [folder / "net.onnx", "--out", folder / "model.pt", *words]
    return CliRunner().invoke(import_.main, [str(word) for word in arguments])


def test_a_file_becomes_a_model(folder):
    result = invoke(folder, "--mean", MEAN[0], "--std", STD[0], "--spec", folder / "spec.toml")
    assert result.exit_code == 0 and "3 layers, 10 classes" in result.stdout, result.output
    assert not result.stderr  # nothing is rounded
    loaded = checkpoint.load(folder / "model.pt")
    assert loaded.spec.formats.residual_width == 12
    expected = theirs(random(3), pixels())
    np.testing.assert_allclose(real.run(loaded.folded(), pixels()), expected, atol=1e-5)
    done = CliRunner().invoke(evaluate.main, [str(folder / "model.pt"), "--integer"])
    assert done.exit_code == 0 and json.loads(done.stdout)["images"] == 360


def test_what_is_rounded_is_said(folder):
    result = invoke(folder, "--mean", 0.305, "--std", STD[0])
    assert result.exit_code == 0
    assert result.stderr == "stem: padded pixels are byte 77.775, rounded to 78\n"


@pytest.mark.parametrize(
    ("text", "words", "fault"),
    [
        (SPEC, ["--mean", 0.5, "--std", 1], "pad=(78,): after this normalisation it is (128,)"),
        ("pad = [1, 2]", [], "pad=(1, 2): after this normalisation it is (128,)"),
        ("depth = 20", [], "spec.toml: depth: the file says it; give formats and pad alone"),
        ("pad = 3", [], "spec.pad=3: must be a list of numbers"),
        (SPEC, ["--map", "x"], "--map, --eps: a .onnx file has names and eps of its own"),
    ],
)
def test_faults_are_one_line(folder, text, words, fault):
    (folder / "spec.toml").write_text(text)
    result = invoke(folder, "--spec", folder / "spec.toml", *words)
    assert result.exit_code == 2 and fault in result.stderr, result.output
    assert not (folder / "model.pt").exists()
