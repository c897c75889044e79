"""Verilog that an earlier build left is used only if it is whole and of the same hardware."""

from __future__ import annotations

import pytest

from bnnhw.flow import tools
from bnnhw.flow.verilog import rtlil_to_verilog


@pytest.fixture
def yosys(monkeypatch):
    """A Yosys that leaves the text it read; `calls` are its runs, `fault` what ends the next."""

    class Yosys:
        calls, fault = 0, None

        def run(self, tool, arguments, *, cwd, log):
            self.calls += 1
            text = (cwd / "engine.il").read_text()
            (cwd / "engine.v").write_text(f"module {text};" + "// long\n" * 1000 + "endmodule\n")
            if self.fault:
                cut(cwd)
                raise self.fault

    result = Yosys()
    monkeypatch.setattr(tools, "run", result.run)
    return result


def cut(folder):
    with (folder / "engine.v").open("r+") as file:
        file.truncate(3000)


def test_unchanged_text_is_converted_once(yosys, tmp_path):
    for text, calls in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        assert rtlil_to_verilog(text, "engine", tmp_path).read_text().startswith(f"module {text};")
        assert yosys.calls == calls


def test_a_cut_file_is_made_anew(yosys, tmp_path):
    whole = rtlil_to_verilog("a", "engine", tmp_path).read_text()
    cut(tmp_path)
    assert rtlil_to_verilog("a", "engine", tmp_path).read_text() == whole
    (tmp_path / "engine.il").write_text("other")
    assert rtlil_to_verilog("a", "engine", tmp_path).read_text() == whole and yosys.calls == 3


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), tools.ToolError("failed")])
def test_a_conversion_that_broke_off_is_made_anew(yosys, tmp_path, fault):
    yosys.fault = fault
    with pytest.raises(type(fault)):
        rtlil_to_verilog("a", "engine", tmp_path)
    yosys.fault = None
    assert rtlil_to_verilog("a", "engine", tmp_path).read_text().endswith("endmodule\n")


def test_a_file_that_yosys_cut_without_a_word_is_no_result(yosys, tmp_path, monkeypatch):
    run = yosys.run
    monkeypatch.setattr(tools, "run", lambda *a, cwd, log: (run(*a, cwd=cwd, log=log), cut(cwd)))
    for _ in range(2):
        with pytest.raises(tools.ToolError, match="engine.v: Yosys has not written it to its end"):
            rtlil_to_verilog("a", "engine", tmp_path)
