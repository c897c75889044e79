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
        keys = [*KEYS, "formats", "streams"] if kind == "integer" else KEYS
        assert list(printed) == keys and printed["integer"] is (kind == "integer")
        assert (printed["dataset"], printed["split"], printed["images"]) == ("digits", "test", 360)
        assert printed["top1"] == recorded[kind] >= 97
    assert abs(recorded["float"] - recorded["integer"]) <= 0.3


@pytest.mark.parametrize(
    ("name", "column", "least"),
    [("resnet20-cifar10", 0, 85), ("resnet20-lean-cifar10", 1, 80)],
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
    assert accuracy["integer"] >= least and accuracy["float"] - accuracy["integer"] <= 0.3


def test_integers_tell_their_formats_and_what_saturates():
    words = ("resnet8-digits", "--integer", "--images", 100)
    result = invoke(*words, "--fraction", "stage1=3,stage2=6")
    printed = json.loads(result.stdout)
    assert printed["formats"]["residual_fractions"] == [4, 3, 6]
    streams = {each["layer"]: each for each in printed["streams"]}
    assert list(streams) == ["stem", *(f"stage{s}.0.conv{c}" for s in (0, 1, 2) for c in (1, 2))]
    worst = streams["stage2.0.conv2"]
    assert worst["saturated"] > 0.01 and worst["holds"] < worst["fraction"] == 6
    assert "stage2.0.conv2 (stage 2): " in result.stderr
    assert f"residual_fraction {worst['holds']} would hold them" in result.stderr
    assert "became" not in result.stderr and "stage1.0.conv1" not in result.stderr
    fine = invoke(*words, "--residual-width", 16)
    assert "scale_fraction: 12 became" in fine.stderr and "saturate" not in fine.stderr
    assert json.loads(fine.stdout)["formats"]["residual_width"] == 16


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--fraction", "stage3=4"], "--fraction stage3=4: give stageN=BITS with N from 0 to 2"),
        (["--fraction", "stage0=9"], "residual_fraction=9: must be a whole number from 0 to 7"),
    ],
)
def test_wrong_formats_are_one_line(words, fault):
    result = invoke("resnet8-digits", "--integer", *words)
    assert result.exit_code == 2 and result.stderr.endswith(f"error: {fault}\n")
    real = invoke("resnet8-digits", "--residual-width", 9)
    assert real.exit_code == 2 and "formats are of integers; give --integer" in real.stderr


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
        (
            [cifar_model, "--data", tmp_path],
            "no class folders of PNG or JPEG images, and none of CIFAR's",
        ),
        ([odd], "give --data with a folder of images or an .npz"),
        (
            [odd, "--dataset", "digits"],
            "digits: images are 8x8x1, the network takes 9x9x1; give --resize",
        ),
        ([cifar_model, "--images", "0"], "0 is not in the range"),
    ]
    for words, message in wrong:
        result = invoke(*words)
        assert result.exit_code == 2 and message in result.stderr
        assert result.stdout == "" and "Traceback" not in result.stderr


def test_a_bundled_model_is_not_written_over(monkeypatch, tmp_path):
    path = checkpoint.bundled("resnet8-digits")
    before = path.read_bytes()
    (tmp_path / "link.pt").symlink_to(path)
    for name in ("resnet8-digits", path, tmp_path / "link.pt"):
        result = invoke(name, "--record", "--images", 1)
        assert result.exit_code == 2 and "copy it and give the copy" in result.stderr
    assert path.read_bytes() == before
