"""A 28x28x1 network on own images: trained, evaluated, studied and proved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bnnhw import build, datasets, evaluate, study, teach, train
from bnnhw.nn import checkpoint

NAMES = tuple("zero one two three four five six seven eight nine".split())
TINY = ("--depth", 8, "--widths", "8,8,8", "--crop", 0, "--batch", 64)


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(command, *words):
    result = CliRunner().invoke(command.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """digits.npz in the layout of MNIST: 28x28x1, with names."""
    train, test = (datasets.load("digits", None, s, (28, 28, 1)) for s in ("train", "test"))
    path = tmp_path_factory.mktemp("data") / "written.npz"
    np.savez(path, x_train=train.pixels[..., 0], y_train=train.labels, names=np.array(NAMES),
             x_test=test.pixels[..., 0], y_test=test.labels)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def model(digits):
    out = digits.with_name("written.pt")
    invoke(train, "--data", digits, *TINY, "--epochs", 4, "--out", out)
    return out


def test_it_learns_and_knows_its_classes(digits, model):
    loaded = checkpoint.load(model)
    assert (loaded.spec.input, loaded.spec.classes) == ((28, 28, 1), 10)
    assert loaded.names == NAMES
    recipe = loaded.metrics["recipe"]
    assert recipe["dataset"] == "written" and recipe["flip"] is False
    assert "--dataset" not in loaded.metrics["command"]
    for words in ((), ("--integer",)):
        told = json.loads(invoke(evaluate, model, "--data", digits, *words).stdout)
        assert told["dataset"] == "written" and told["images"] == 360
        assert told["top1"] > 50  # of ten classes; four epochs


def test_its_proof_runs_on_its_own_test_images(digits, model, tmp_path):
    invoke(build, "--board", "icebreaker", model, "--data", digits, "--stop-after", "verilog",
           "--out", tmp_path)  # fmt: skip
    proof = json.loads((tmp_path / "report.json").read_text())["verification"]
    assert proof["bit_exact"] is True and proof["source"] == "written" and proof["images"] == 1


def test_a_folder_is_resized_if_asked_and_refused_otherwise(digits, model, tmp_path):
    test = datasets.load(None, digits)
    for at, (pixels, label) in enumerate(zip(test.pixels[:200], test.labels, strict=False)):
        file = tmp_path / "drawn" / f"{label}" / f"{at}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).resize((20, 24)).save(file)
    words = ("--data", tmp_path / "drawn")
    result = CliRunner().invoke(evaluate.main, [str(model), *map(str, words)])
    assert result.exit_code == 2
    assert "drawn: images are 24x20x1, the network takes 28x28x1; give --resize" in result.stderr
    result = CliRunner().invoke(evaluate.main, [str(model), *map(str, words), "--resize"])
    assert result.exit_code == 2  # class folders 0 to 9, which the network knows by other names
    assert "drawn: class 0 is '0', the network's is 'zero'" in result.stderr
    for label, name in enumerate(NAMES):  # what sorts like the numbers
        (tmp_path / "drawn" / str(label)).rename(tmp_path / "drawn" / f"{label} {name}")
    out = tmp_path / "drawn.pt"
    words += ("--input", "12x16x1", "--resize", "--epochs", 1, "--batch", 32, "--out", out)
    invoke(train, *words, "--depth", 8, "--widths", "4,4,4")
    loaded = checkpoint.load(out)
    assert loaded.spec.input == (12, 16, 1) and loaded.names[3] == "3 three"
    assert loaded.metrics["recipe"]["resize"] and "--resize" in loaded.metrics["command"]
    told = json.loads(invoke(evaluate, out, *words[:2], "--resize").stdout)
    assert told["images"] == 41  # a fifth of each class
    invoke(teach, *words[:7], "--batch", 32, "--depth", 8, "--widths", "4,4,4", "--out",
           tmp_path / "teacher.pt")  # fmt: skip


def test_a_study_of_own_images_knows_them_from_others(digits, tmp_path):
    words = ("--plan", "isolated", "--data", digits, "--depth", 8, "--widths", "2,2,2",
             "--epochs", 1, "--seeds", 1, "--images", 64, "--only", "baseline",
             "--out", tmp_path / "out")  # fmt: skip
    assert invoke(study, *words).stdout.strip().endswith("study-isolated-written.md")
    (first,) = (tmp_path / "out" / "runs").glob("*.json")
    assert json.loads(first.read_text())["dataset"] == "written"
    invoke(study, *words)
    assert len([*(tmp_path / "out" / "runs").glob("*.json")]) == 1
    with np.load(digits) as file:
        arrays = {name: file[name] for name in file.files}
    other = tmp_path / "written.npz"
    np.savez(other, **(arrays | dict(x_train=arrays["x_train"][:, ::-1])))
    invoke(study, *words[:3], other, *words[4:])
    assert len([*(tmp_path / "out" / "runs").glob("*.json")]) == 2


def test_what_resize_cannot_know_is_asked_for(digits, tmp_path):
    words = ["--data", str(digits), "--resize", "--epochs", "1", "--out", str(tmp_path / "m.pt")]
    result = CliRunner().invoke(train.main, words)
    assert result.exit_code == 2 and "--resize: to what size? give --input" in result.stderr
