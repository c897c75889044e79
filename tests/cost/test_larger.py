"""What a board has no room for is measured on the next larger one, against the baseline there."""

from __future__ import annotations

import csv
from dataclasses import replace

from bnnhw.cost import bench
from bnnhw.cost.larger import further
from tests.cost.measuring import by_method, case, run

BOARD, LARGER = "icebreaker", "ulx3s"


def test_a_method_too_large_is_measured_on_the_larger_board(fakes, tmp_path):
    fakes.luts = 5280 - 20  # and 64 more with a border
    assert run(tmp_path, "optimizer=sgd,padding", "--seeds", 1).exit_code == 0
    found = by_method(tmp_path)
    base, sgd, padding = (
        found[name] for name in ("baseline", "optimizer=sgd", "padding=minus-one")
    )
    assert (base["status"], sgd["status"]) == ("built", "built") and sgd["larger"] is None
    assert (padding["status"], padding["over"]) == ("does not fit", {"lc": 44})
    there = padding["larger"]
    assert (there["board"], there["status"], there["lut"]) == (LARGER, "built", 5324)
    assert there["delta"]["lut"] == 64 and there["delta"]["busy_cycles"] == 1
    assert there["fps"] == round(min(30e6, there["clock_mhz"] * 1e6) / 12001, 2)
    assert base["larger"]["board"] == LARGER and base["larger"]["delta"] == {}
    calls = [*fakes.calls]
    assert calls.count("prove") == 5
    run(tmp_path, "optimizer=sgd,padding", "--seeds", 1)
    assert fakes.calls == calls and by_method(tmp_path) == found


def test_tables_tell_where_it_was_measured(fakes, tmp_path):
    fakes.luts = 5280 - 20
    run(tmp_path, "padding", "--stop-after", "synth")
    text = (tmp_path / "repair-cost.md").read_text()
    assert "- padding=minus-one: does not fit: too large for the device by 44 LC" in text
    _, there = text.split("## On the ulx3s")
    row = next(line for line in there.splitlines() if line.startswith("| padding=minus-one"))
    assert " 5,324 (+64) |" in row and " 44 LC |" in row
    with open(tmp_path / "repair-cost.csv") as file:
        rows = [(line["method"], line["board"], line["lut"]) for line in csv.DictReader(file)]
    assert rows == [
        ("baseline", BOARD, "5260"), ("padding=minus-one", BOARD, "5324"),
        ("baseline", LARGER, "5260"), ("padding=minus-one", LARGER, "5324"),
    ]  # fmt: skip
    page = (tmp_path / "repair-cost.html").read_text()
    assert page.count("<table") == 2 and "On the ulx3s" in page and "5,324" in page


def test_what_no_board_has_room_for_says_so_of_each(fakes, tmp_path):
    fakes.luts = 83640
    run(tmp_path / "fits", "baseline", "--stop-after", "synth")
    assert by_method(tmp_path / "fits")["baseline"]["larger"]["status"] == "built"
    fakes.luts += 1
    run(tmp_path / "none", "baseline", "--stop-after", "synth")
    text = (tmp_path / "none" / "repair-cost.md").read_text()
    assert "- baseline: does not fit: too large for the device by 78361 LC" in text
    assert "- baseline on the ulx3s: does not fit: too large for the device by 1 LUT" in text


def test_the_larger_board_is_measured_as_any_other(fakes, tmp_path):
    fakes.luts = 5280 - 20
    run(tmp_path, "padding", "--stop-after", "synth", "--board", LARGER)
    found = by_method(tmp_path)["padding=minus-one"]
    assert (found["board"], found["status"], found["delta"]["lut"]) == (LARGER, "built", 64)
    assert found["larger"] is None and fakes.calls.count("synth") == 2


def test_nothing_is_measured_on_the_larger_board_in_vain(fakes, tmp_path):
    base, wide = case(tmp_path), case(tmp_path, widths=(16, 32, 512))
    asked = [base, wide]
    for mine in asked:
        bench.perform(mine)
    assert further(base, asked) == []
    assert further(wide, asked) == [there := replace(wide, board=LARGER)]
    bench.perform(there)  # which runs as few folds, and is the largest
    assert there.row()["status"] == "does not fit" and further(there, [*asked, there]) == []


def test_the_baseline_is_measured_once_where_any_method_is(fakes, tmp_path):
    base, there = case(tmp_path), replace(case(tmp_path), method="other", board=LARGER)
    bench.perform(there)
    assert further(there, [base, there]) == [replace(base, board=LARGER)]
    assert further(there, [base, there, replace(base, board=LARGER)]) == []
