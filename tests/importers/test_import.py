"""bnnhw import: files in, a model file out that is evaluated and planned as any other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bnnhw import evaluate, import_
from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import make_plan
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.spec import NetworkSpec, Repair
from bnnhw.nn import checkpoint, untrained

SPEC = """
widths = [4, 8]
stages = [1, 2]
input = [8, 8, 1]
[repair]
feature_binarizer = "rsign"
activation = "maxout"
[formats]
residual_fraction = 5
"""
MODEL = NetworkSpec(widths=(4, 8), stages=(1, 2), input=(8, 8, 1),
                    repair=Repair("rsign", activation="maxout"))  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """A state dict under foreign names, its spec and its names."""
    model = untrained(MODEL, 1)
    places = {shape.name: n for n, shape in enumerate(MODEL.convolutions())}
    lines = [f'"{name}" = "convolutions.{n}"' for name, n in places.items()]
    (tmp_path / "names.toml").write_text("\n".join([*lines, 'head = "fc"']))
    state = {name.replace("head.", "fc."): part for name, part in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.pt")
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


def invoke(folder, *words, **files):
    given = dict(spec="spec.toml", map="names.toml") | files
    options = [word for name, file in given.items() for word in (f"--{name}", folder / file)]
    arguments = [folder / "net.pt", *options, "--out", folder / "model.pt", *words]
    return CliRunner().invoke(import_.main, [str(word) for word in arguments])


def test_a_network_comes_in_is_evaluated_and_planned(files):
    result = invoke(files)
    assert result.exit_code == 0 and "6 layers, 10 classes" in result.stdout, result.output
    loaded = checkpoint.load(files / "model.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    theirs = untrained(MODEL, 1).folded()
    np.testing.assert_allclose(
        real.run(loaded.folded(), pixels), real.run(theirs, pixels), atol=1e-4
    )
    assert loaded.spec.formats.residual_fraction == 5
    for words in ([], ["--integer"]):
        done = CliRunner().invoke(
            evaluate.main, [str(files / "model.pt"), "--images", "20", *words]
        )
        assert done.exit_code == 0 and json.loads(done.stdout)["images"] == 20
    assert make_plan(lower(loaded, exponents=False), BOARD).steps
    with pytest.raises(UserError, match="an imported network has no modules that could train on"):
        loaded.model()


def change(path, name, value):
    content = torch.load(path, weights_only=True)
    content["folded"]["layers"][1][name] = value
    torch.save(content, path)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("offset", torch.zeros(3), r"conv2.offset: must be of shape \(4,\), is \(3,\)"),
        ("offset", torch.full((4,), torch.nan), r"conv2.offset\[0\]=nan: must be finite"),
        ("terms", [{"kind": "Tram"}], "kind 'Tram': no part of a network is one"),
        ("activation", None, "conv2.activation: not that of activation=maxout"),
        ("colour", 3, "a Folded has other parts than those of the file"),
    ],
)
def test_a_damaged_file_is_told(files, name, value, fault):
    assert invoke(files).exit_code == 0
    change(files / "model.pt", name, value)
    with pytest.raises(UserError, match=fault):
        checkpoint.load(files / "model.pt")


@pytest.mark.parametrize(
    ("file", "text", "words", "fault"),
    [
        ("names.toml", "", [], "missing: stage0.0.conv1.weight, stage0.0.conv1"),
        ("names.toml", "head = 3", [], "--map: head must be a name, not 3"),
        ("spec.toml", "depth = 9", [], "depth=9: must be 6n+2"),
        ("spec.toml", "depth =", [], "spec.toml: not TOML"),
        ("spec.toml", SPEC, ["--mean", "a"], "--mean a: give numbers such as"),
        ("spec.toml", SPEC, ["--mean", "0.3"], "give both or none"),
    ],
)
def test_faults_are_one_line(files, file, text, words, fault):
    (files / file).write_text(text)
    result = invoke(files, *words)
    assert result.exit_code == 2 and fault in result.stderr and result.stderr.count("\n") == 1
    assert not (files / "model.pt").exists()
