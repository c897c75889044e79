"""The library: what the README shows, and what each stage refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import bnnhw
from bnnhw.flow.stages import Implementation

README = Path(__file__).parents[2] / "README.md"


def lines_of_the_readme() -> str:
    text = README.read_text()
    return text.split("<!-- python -->\n```python\n")[1].split("```")[0]


def test_the_lines_of_the_readme_do_what_the_command_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(lines_of_the_readme(), names)
    assert names["proof"].bit_exact and names["proof"].tensors > 20
    chip = names["chip"]
    assert isinstance(chip, Implementation) and chip.placed.met
    assert chip.bitstream.stat().st_size > 100_000 and chip.cells["dsp"] == 8
    assert names["design"].flash.exists() and names["design"].top.exists()
    for result in ("model", "plan", "design", "proof", "chip"):
        with pytest.raises(FrozenInstanceError):
            names[result].folder = "another"


def test_names_are_imported_when_they_are_asked_for():
    code = (
        "import sys, bnnhw; print(sorted({'torch', 'numpy', 'amaranth', 'rich'} & {*sys.modules}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "[]\n"
    assert {"load", "lower", "board", "prove", "__version__"} <= {*dir(bnnhw)}
    version = bnnhw.__version__
    assert version.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'lowers'"):
        getattr(bnnhw, "lowers")  # noqa: B009, the access is what is tested


def test_what_a_stage_cannot_do_is_named(tmp_path):
    with pytest.raises(bnnhw.UserError, match="icebreaker, upduino_v3"):
        bnnhw.board("icebreakr")
    with pytest.raises(bnnhw.UserError, match="nowhere.pt"):
        bnnhw.load(tmp_path / "nowhere.pt")
    board = bnnhw.board("icebreaker")
    plan = bnnhw.make_plan(bnnhw.lower(bnnhw.load("resnet8-digits")), board)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(bnnhw.UserError, match="give another directory"):
        bnnhw.write_design(plan, board, tmp_path / "file" / "folder")
    with pytest.raises(bnnhw.UserError, match="16 to 66 MHz"):
        bnnhw.write_design(plan, board, tmp_path / "new", clock_hz=5e6)
    assert not (tmp_path / "new").exists()
