"""python -m bnnhw.evaluate: one JSON object, or one line that says what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnnhw import evaluate
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint, untrained
from tests.datasets.test_images import CIFAR10, write_cifar

KEYS = ["model", "dataset", "split", "images", "top1", "integer"]


def invoke(*words):
    return CliRunner().invoke(evaluate.main, [str(word) for word in words])


@pytest.fixture
def cifar_model(tmp_path):
    path = tmp_path / "m.pt"
    checkpoint.save(path, untrained(NetworkSpec(depth=8, widths=(4, 4, 4))))
    return path


def test_bundled_digits_reach_their_recorded_accuracy():
    recorded = checkpoint.load(checkpoint.bundled("resnet8-digits")).metrics["accuracy"]
    for words, kind in ((["--integer"], "integer"), ([], "float")):
        result = invoke("resnet8-digits", *words)
        assert result.exit_code == 0
        printed = json.loads(result.stdout)
        assert list(printed) == KEYS and printed["integer"] is (kind == "integer")
        assert (printed["dataset"], printed["split"], printed["images"]) == ("digits", "test", 360)
        assert printed["top1"] == recorded[kind] >= 97
    assert abs(recorded["float"] - recorded["integer"]) <= 0.3


@pytest.mark.parametrize(
    ("name", "column", "least"),
    [("resnet20-cifar10", 0, 86), ("resnet20-lean-cifar10", 1, 80)],
)
def test_bundled_resnet20_records_what_is_claimed(name, column, least):
    loaded = checkpoint.load(checkpoint.bundled(name))
    assert (loaded.spec.depth, loaded.spec.widths) == (20, (16, 32, 64))
    accuracy = loaded.metrics["accuracy"]
    assert (accuracy["dataset"], accuracy["split"], accuracy["images"]) == (
        "cifar10",
        "test",
        10000,
    )
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = re.findall(r"^\| top-1, (float|integer) \|(.*)\|$", readme, re.MULTILINE)
    claimed = {
        kind: float(
            re.fullmatch(r" ([\d.]+) % of 10,000 test images ", cells.split("|")[column])[1]
        )
        for kind, cells in rows
    }
    assert claimed == {kind: accuracy[kind] for kind in ("float", "integer")}
    assert accuracy["integer"] >= least and abs(accuracy["float"] - accuracy["integer"]) <= 0.3


def test_cifar_directory_and_record(tmp_path, cifar_model):
    write_cifar(tmp_path, CIFAR10)
    result = invoke(cifar_model, "--data", tmp_path, "--integer", "--images", 20)
    printed = json.loads(result.stdout)
    assert (printed["images"], printed["model"]) == (20, "m.pt")
    assert invoke(cifar_model, "--data", tmp_path, "--record").exit_code == 0
    accuracy = checkpoint.load(cifar_model).metrics["accuracy"]
    assert list(accuracy) == ["dataset", "split", "images", "float", "integer"]
    assert accuracy["images"] == 30


def test_faults_are_one_line(tmp_path, cifar_model):
    odd = tmp_path / "odd.pt"
    checkpoint.save(odd, untrained(NetworkSpec(depth=8, widths=(4, 4, 4), input=(9, 9, 1))))
    wrong = [
        ([tmp_path / "none.pt"], "none.pt: No such file or directory"),
        ([cifar_model], "no data: give --data"),
        ([cifar_model, "--data", tmp_path], "give the directory that holds"),
        ([odd], "name one with --dataset"),
        ([odd, "--dataset", "digits"], "images are 8x8x1, the model takes 9x9x1"),
        ([cifar_model, "--images", "0"], "0 is not in the range"),
    ]
    for words, message in wrong:
        result = invoke(*words)
        assert result.exit_code == 2 and message in result.stderr
        assert result.stdout == "" and "Traceback" not in result.stderr
