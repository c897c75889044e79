"""The cost of one method: what is counted, what cannot be built, what a worker gets."""

from __future__ import annotations

import pickle
from dataclasses import replace

from bnnhw.cost import bench
from bnnhw.flow import implement, tools
from bnnhw.flow.prove import Mismatch
from bnnhw.network.repair import Repair
from tests.cost.measuring import case


def test_a_network_that_is_not_bit_exact_has_no_cost(fakes, tmp_path):
    fakes.mismatch = Mismatch(0, "stem.bits", (1, 2, 3), 1, 0)
    bench.perform(case(tmp_path))
    row = case(tmp_path).row()
    assert row["status"] == "not bit-exact" and "stem.bits[1, 2, 3] is 0" in row["reason"]
    assert "cells" not in row and "synth" not in fakes.calls


def test_a_plan_that_does_not_fit_says_by_how_much(fakes, tmp_path):
    wide = case(tmp_path, widths=(16, 32, 512))
    bench.perform(wide)
    row = wide.row()
    assert row["status"] == "does not fit" and not fakes.calls
    assert row["over"]["weight buffer (entries of a layer)"] == 512 * 32 // 16 - 256
    assert "needs 1024, has 256" in row["reason"]


def test_more_luts_than_cells_are_not_placed(fakes, tmp_path):
    fakes.luts = 5280 + 7
    bench.perform(case(tmp_path))
    row = case(tmp_path).row()
    assert row["status"] == "does not fit" and row["over"] == {"lc": 7}
    assert row["reason"] == "too large for the device by 7 LC"
    assert row["cells"]["lut"] == 5287 and "place 1" not in fakes.calls


def test_cells_that_only_the_placer_counts(fakes, tmp_path, monkeypatch):
    def place(board, folder, seed, clock_hz, seconds):
        (folder / f"nextpnr-{seed}.log").write_text("Info: \t  ICESTORM_LC:    5300/   5280   100%")
        raise tools.ToolError("nextpnr: failed to place")

    monkeypatch.setattr(implement, "place", place)
    bench.perform(case(tmp_path))
    assert case(tmp_path).row()["over"] == {"lc": 20}


def test_a_seed_that_fails_has_another_in_its_place(fakes, tmp_path, monkeypatch):
    placed = implement.place

    def place(board, folder, seed, clock_hz, seconds):
        if seed == 1:
            (folder / "nextpnr-1.log").write_text("Info: \t  ICESTORM_LC:    5200/   5280    98%")
            raise tools.ToolError("nextpnr: no end")
        return placed(board, folder, seed, clock_hz, seconds)

    monkeypatch.setattr(implement, "place", place)
    bench.perform(case(tmp_path))
    row = case(tmp_path).row()
    assert row["status"] == "built" and row["unplaced"] == ["seed 1: nextpnr: no end"]
    assert [entry["seed"] for entry in row["placements"]] == [2]


def test_a_livelock_is_not_tried_again_for_equal_hardware(fakes, tmp_path, monkeypatch):
    placed, tried = implement.place, []

    def place(board, folder, seed, clock_hz, seconds):
        tried.append(seed)
        if seed == 1:
            raise tools.ToolHopeless("nextpnr: a livelock")
        return placed(board, folder, seed, clock_hz, seconds)

    monkeypatch.setattr(implement, "place", place)
    other = replace(case(tmp_path).spec, repair=Repair(double_residual=False, optimizer="sgd"))
    for asked in (case(tmp_path), replace(case(tmp_path), spec=other, method="other")):
        bench.perform(asked)
        row = asked.row()
        assert row["unplaced"] == ["seed 1: nextpnr: a livelock"]
        assert [entry["seed"] for entry in row["placements"]] == [2]
    assert tried == [1, 2]


def test_a_case_travels_to_a_worker(tmp_path):
    mine = case(tmp_path)
    assert pickle.loads(pickle.dumps(mine)).path == mine.path
    assert case(tmp_path, 2).path != mine.path
