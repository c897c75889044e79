"""The table of costs: sums, differences, CSV and Markdown."""

from __future__ import annotations

import csv
import io

from tests.cost.measuring import DIGITS, run, trained


def test_entries_hold_sums_and_differences(table):
    assert table[0]["reads"] == 7 and table[0]["writes"] == 2
    assert table[1]["delta"]["lc"] == 50 and table[1]["delta"]["accuracy"] == 10.0
    assert "accuracy" not in table[4]["delta"] and table[4]["delta"]["busy_cycles"] == -100


def test_csv_has_a_line_for_each_method_and_no_made_up_figures(fakes, tmp_path):
    trained(tmp_path / "models", DIGITS, 91.25)
    result = run(tmp_path / "out", "padding", "--models", tmp_path / "models", "--seeds", 3)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out/repair-cost.csv").read_text()
    base, padding = csv.DictReader(io.StringIO(text))
    assert base["accuracy"] == "91.25" and padding["accuracy"] == ""
    assert (base["lc"], padding["lc"], padding["delta_lc"]) == ("4500", "4564", "64")
    assert base["image_reads"] == "1936" and base["delta_lc"] == ""
    lines = (tmp_path / "out/repair-cost.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| padding=minus-one"))
    for word in ("4,564 (+64)", "12,001 (+1)", "26.00 [25.00 to 30.00]", "not trained", "differ"):
        assert f" {word} |" in row, word
    assert "180 validation images of digits" in "\n".join(lines)
    accesses = lines.index(next(line for line in lines if line.startswith("| accesses")))
    for table in (lines[:accesses], lines[accesses:]):
        assert len({line.count("|") for line in table if line.startswith("|")}) == 1
    assert "| baseline | 65 | 2,517 | 1,936 | 92 | 512 | 64 | 152 | 1,120 |" in lines[accesses:]
