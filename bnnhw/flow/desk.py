"""A build on a desk: its board on a port, or its Verilog in a simulator that looks like one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnhw.boards import board
from bnnhw.boards.numbers import baud_divisor
from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.gateware.wire import IDENTITY_BYTES, Identity
from bnnhw.host.client import Client, find_port, open_port
from bnnhw.sim.board_port import build_port, running
from bnnhw.sim.runner import SimulationError

SIMULATED = "sim"  # in place of a port's name
PATIENCE = 60.0  # times a board's, of a client that speaks to a simulation


@dataclass(frozen=True)
class Built:
    """What a build has left. identity : of its flash.bin. report : its report.json."""

    folder: Path
    identity: Identity
    report: dict[str, Any]


def read_build(folder: Path) -> Built:
    """Returns what a build has left; raises UserError where the folder is none."""
    try:
        report = json.loads((folder / "report.json").read_text())
        identity = Identity.unpack((folder / "flash.bin").read_bytes()[:IDENTITY_BYTES])
    except FileNotFoundError as fault:
        raise UserError(f"{folder}: no {Path(fault.filename).name}; give a build's folder with "
                        "--build, or build one: bnnhw build") from None  # fmt: skip
    except (OSError, ValueError) as fault:
        raise UserError(f"{folder}: {fault}; build it anew: bnnhw build") from None
    return Built(folder, identity, report)


def newest_build(root: Path = Path("build")) -> Path | None:
    """Returns the folder of the last build below a folder, None if there is none."""
    reports = [path for path in root.glob("*/report.json") if (path.parent / "flash.bin").exists()]
    return max(reports, key=lambda path: path.stat().st_mtime).parent if reports else None


def find_build(folder: Path | None) -> Built:
    """Returns the build of a folder, or the newest in ./build; raises UserError without one."""
    found = folder or newest_build()
    if found is None:
        raise UserError("no build in ./build; give its folder with --build, or bnnhw build one")
    return read_build(found)


@contextmanager
def connected(built: Built, port: str | None) -> Iterator[Client]:
    """Gives a client of the build's board. port : its name, SIMULATED, or None to find it."""
    if port == SIMULATED:
        with simulated(built) as client:
            yield client
        return
    baud = built.identity.baud
    chosen = board(built.report["board"])
    name = port or find_port(chosen.name, chosen.usb)
    opened = open_port(name, baud)
    try:
        yield Client(opened, name, baud)
    finally:
        opened.close()


@contextmanager
def simulated(built: Built) -> Iterator[Client]:
    """Gives a client of the build's Verilog in Verilator, compiled in its folder on first use."""
    tools.check_host()
    chosen, identity = board(built.report["board"]), built.identity
    bench = chosen.bench(streams=built.report["flash"].get("streamed", False))
    _, divisor = baud_divisor(identity.clock_hz, identity.baud)
    try:
        program = build_port(
            [built.folder / "top.v"], bench=bench, share=tools.yosys_share(),
            flash_offset=chosen.flash_offset, flash=(built.folder / "flash.bin").read_bytes(),
            folder=built.folder / "work" / "port", environment=tools.environment(),
        )  # fmt: skip
        with running(program, divisor) as name:
            opened = open_port(name, identity.baud)
            yield Client(opened, SIMULATED, identity.baud, patience=PATIENCE)
            opened.close()
    except SimulationError as fault:
        raise UserError(f"--port sim: {fault}") from None
