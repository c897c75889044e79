"""report.html, two builds compared, and cells by module."""

import copy
import json

import pytest
from click.testing import CliRunner

from bnnhw.flow.families import ECP5, ICE40
from bnnhw.flow.modules import count_modules, module_of, shares
from bnnhw.flow.page import bounds, differences, page, timeline
from bnnhw.report import main

FULL = dict(
    board="icebreaker", device="iCE40UP5K-SG48",
    model=dict(name="<mine>", sha256="ab" * 32, classes=[]),
    resources=dict(lc=dict(used=4800, total=5280), dsp=dict(used=4, total=8)),
    timing=dict(fmax_mhz=25.5, clock_mhz=24.0, met=True, seed=3, tried=["seed 1: stopped"]),
    performance=dict(
        cycles_per_inference=600, busy_cycles=1000, latency_us=25.0, fps=24000.0, link_fps=98.0,
        layers=[
            dict(name="stem", cycles=600, bound_by="compute"),
            dict(name="conv", cycles=300, bound_by="memory"),
            dict(name="never", cycles=None, bound_by="memory"),
            dict(name="head", cycles=100, bound_by="compute"),
        ],
    ),
    verification=dict(
        bit_exact=True, images=2, source="digits", tensors=60, simulator="verilator 5"
    ),
    accuracy=dict(
        dataset="digits", split="test", images=360, float=98.33, integer=98.06, measured=None
    ),
    modules={"engine.array": dict(lut=300, ff=0), "flash": dict(lut=100, ff=50)},
    formats=[dict(name="conv", output=[8, 8, 16], weights=2304, macs=9, width=8, fraction=4)],
    flash=dict(file="flash.bin", offset=0x100000), tools=dict(python="3.11"),
    files={"top.bin": "cd" * 32},
)  # fmt: skip
EARLY = FULL | dict(
    resources=None, performance=None, verification=None, modules=None,
    timing=dict(fmax_mhz=None, clock_mhz=24.0, met=None, seed=None, tried=[]),
)  # fmt: skip


def test_a_page_says_all_of_a_report():
    text = page(FULL, "load it")
    for said in (
        "&lt;mine&gt; on icebreaker", "25.50 MHz", "4,800 of 5,280, 91 %", "24000.0 images/s",
        "bound by compute: 70 %", "engine.array", "300, 75.0 %", "98.06 % as integers", "8x8x16",
        "60 tensors of 2 digits images", "load it", "seed 1: stopped", "cd" * 32,
    ):  # fmt: skip
        assert said in text, said
    assert "<mine>" not in text and "://" not in text


def test_a_build_that_stopped_early_has_a_page_too():
    text = page(EARLY, "load it")
    assert "Not synthesised" in text and "Nothing was proved" in text and "not placed" in text


def test_a_mismatch_is_not_hidden():
    proof = FULL["verification"] | dict(bit_exact=False, mismatch="conv.bits[1, 2]")
    text = page(FULL | dict(verification=proof), "")
    assert "WRONG" in text and "Not every" in text and "conv.bits[1, 2]" in text


def test_the_timeline_is_the_steps_that_ran():
    steps = timeline(FULL)
    assert [(s["name"], s["begin"], s["share"]) for s in steps] == [
        ("stem", 0.0, 0.6), ("conv", 0.6, 0.3), ("head", 0.9, 0.1),
    ]  # fmt: skip
    assert bounds(FULL) == [("compute", 700, 0.7), ("memory", 300, 0.3)]


def put(folder, content):
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(content))
    return str(folder)


def test_two_builds_are_compared(tmp_path):
    other = copy.deepcopy(FULL)
    other["resources"]["lc"]["used"], other["timing"]["fmax_mhz"] = 4560, None
    rows = {row[0]: row[1:] for row in differences(FULL, other)}
    assert rows["LC"] == ("4,800", "4,560", "-240 (-5.0 %)")
    assert rows["Fmax, MHz"] == ("25.5", "unknown", "")
    folders = [put(tmp_path / name, content) for name, content in (("a", FULL), ("b", other))]
    result = CliRunner().invoke(main, folders, catch_exceptions=False)
    assert result.exit_code == 0 and "-240 (-5.0 %)" in result.output
    assert "DSP" not in result.output and "other figures are the same" in result.output
    assert "DSP" in CliRunner().invoke(main, [*folders, "--all"]).output


def test_a_page_is_made_anew(tmp_path):
    folder = put(tmp_path / "a", FULL)
    assert CliRunner().invoke(main, [folder]).exit_code == 0
    text = (tmp_path / "a" / "report.html").read_text()
    assert f"iceprog {folder}/top.bin" in text


def test_a_report_that_lacks_something_is_refused(tmp_path):
    folder = put(tmp_path / "a", {"board": "icebreaker", "model": {}, "resources": {}})
    result = CliRunner().invoke(main, [folder])
    assert result.exit_code == 2 and "has no performance" in result.stderr


KNOWN = {
    "device", "device.engine", "device.engine.array", "device.engine.weights$19", "device.flash",
    "memory", "tx_buffer", "device.engine.array.dot_0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "module"),
    [
        ("device.engine.array.dot_0.sum[4]_SB_DFF_Q", "engine.array"),
        ("device.engine.weights$19.memory.0.0", "engine.weights"),
        ("device.engine.address[3]_SB_LUT4_O", "engine"),
        ("device.flash.index[5]_SB_DFFE_Q_D", "flash"),
        ("device.booted_SB_LUT4_O", "device"),
        ("memory.spram0", "memory"),
        ("tx_buffer.buf", "pins"),
        ("$abc$123$auto$456", "other"),
        ("clk", "other"),
    ],
)
def test_a_cell_is_its_modules(cell, module):
    assert module_of(cell, KNOWN) == module


@pytest.mark.parametrize(("family", "lut"), [(ICE40, "SB_LUT4"), (ECP5, "CCU2C")])
def test_cells_are_counted_by_module(tmp_path, family, lut):
    names = {"device.flash.a": lut, "device.flash.b": "SB_DFFE", "memory.c": lut, "memory.d": lut}
    cells = {name: dict(type=kind) for name, kind in names.items()}
    (tmp_path / "top.json").write_text(json.dumps({"modules": {"top": {"cells": cells}}}))
    (tmp_path / "top.il").write_text(
        "module \\top\nmodule \\top.device.flash\nmodule \\top.memory\n"
    )
    found = count_modules(tmp_path, family)
    each = family.cells["lut"][lut]
    assert [*found] == ["memory", "flash"]
    assert found["memory"]["lut"] == 2 * each and found["flash"]["lut"] == each
    assert found["flash"]["ff"] == (family is ICE40)
    assert shares(found, "lut") == [("memory", 2 * each, 2 / 3), ("flash", each, 1 / 3)]
