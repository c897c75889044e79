"""Yosys, nextpnr and icepack on a board's design: netlist, placed design, bitstream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bnnhw import tools
from bnnhw.errors import UserError
from boards.board import Board

PNR_SECONDS = 300
LIVELOCK_LINES = 12
SEEDS = 4
CELLS = dict(lc="ICESTORM_LC", ebr="ICESTORM_RAM", spram="ICESTORM_SPRAM", dsp="ICESTORM_DSP")

# No memory here is read where it is written in the same cycle, so what a collision gives need not
# be emulated; and wires are split before technology mapping, whose names for single bits clash
# with whole wires of the same design otherwise (github.com/YosysHQ/yosys/issues/4349).
_SYNTH = """\
read_rtlil top.il
setparam -set COLLISION_X_MASK 1 t:$memrd_v2
synth_ice40 {options} -top top -run begin:map_luts
splitnets
synth_ice40 {options} -top top -run map_luts:
tee -o top.stat stat
write_json top.json
write_verilog -noattr -simple-lhs netlist.v
"""


@dataclass(frozen=True)
class Placed:
    """The result of place and route.

    seed : that won. fmax_mhz : of the slowest clock. utilisation : {"lc": used, "ebr": ...}.
    tried : what each seed before it gave, such as "seed 1: stopped after 300 s".
    """

    seed: int
    fmax_mhz: float
    clock_mhz: float
    utilisation: dict[str, int]
    tried: tuple[str, ...]

    @property
    def met(self) -> bool:
        return self.fmax_mhz >= self.clock_mhz


def cell_counts(statistics: str) -> dict[str, int]:
    """{cell type: number} of the text of Yosys's `stat`."""
    return {
        name: int(count)
        for count, name in re.findall(r"^ +(\d+)(?: +\S+)? +(SB_\w+)$", statistics, re.MULTILINE)
    }


def synthesise(board: Board, folder: Path) -> dict[str, int]:
    """top.il to top.json, and to netlist.v for simulators, in `folder`.

    Returns {"lut", "ff", "ebr", "spram", "dsp": cells}.
    """
    (folder / "top.ys").write_text(_SYNTH.format(options=" ".join(board.synth_opts)))
    tools.run(tools.YOSYS, ["-q", "-l", "yosys.log", "top.ys"], cwd=folder, log="yosys.out")
    cells = cell_counts((folder / "top.stat").read_text())

    def count(prefix: str) -> int:
        return sum(number for name, number in cells.items() if name.startswith(prefix))

    kinds = dict(lut="SB_LUT4", ff="SB_DFF", ebr="SB_RAM40", spram="SB_SPRAM", dsp="SB_MAC16")
    return {name: count(prefix) for name, prefix in kinds.items()}


def livelock(log: str) -> str | None:
    """Whether nextpnr's router goes round in a circle: many lines with as many arcs left over.

    A line is `Info: iterations | ... | arcs remaining | ...`, one each thousand iterations.
    """
    found = re.findall(r"^Info: +\d+ \|[^|]*\|[^|]*\| +(\d+)\|", log, re.MULTILINE)
    last = found[-LIVELOCK_LINES:]
    if len(last) == LIVELOCK_LINES and len(set(last)) == 1:
        return f"its router is in a livelock with {last[0]} arcs left"
    return None


def packed(log: str) -> dict[str, int]:
    """{"lc", "ebr", "spram", "dsp": used}, those that a log of nextpnr tells.

    A design that is too large has no report, but this table in its log.
    """
    found = {kind: re.search(rf"\b{cell}: +(\d+)/", log) for kind, cell in CELLS.items()}
    return {kind: int(match[1]) for kind, match in found.items() if match}


def place(
    board: Board, folder: Path, seed: int, clock_hz: float, seconds: float = PNR_SECONDS
) -> Placed:
    """top.json to top-<seed>.asc with one seed, whether or not it meets the clock.

    Raises ToolStopped after so many seconds or in a livelock, ToolError where nextpnr fails.
    """
    report = folder / f"pnr-{seed}.json"
    report.unlink(missing_ok=True)
    tools.run(
        tools.NEXTPNR_ICE40,
        [*board.nextpnr_opts, "--json", "top.json", "--pcf", "top.pcf", "--asc", f"top-{seed}.asc",
         "--freq", f"{clock_hz / 1e6:g}", "--seed", str(seed), "--timing-allow-fail",
         "--report", report.name],
        cwd=folder, log=f"nextpnr-{seed}.log", timeout=seconds, hopeless=livelock,
    )  # fmt: skip
    found = json.loads(report.read_text())
    used = found["utilization"]
    return Placed(
        seed=seed,
        fmax_mhz=round(min(clock["achieved"] for clock in found["fmax"].values()), 2),
        clock_mhz=clock_hz / 1e6,
        utilisation={name: used[cell]["used"] for name, cell in CELLS.items()},
        tried=(),
    )


def place_and_route(
    board: Board,
    folder: Path,
    *,
    seed: int,
    clock_hz: float,
    tell: Callable[[str], None] = lambda line: None,
) -> Placed:
    """top.json to top-<seed>.asc; SEEDS seeds from `seed` on, until one meets the clock.

    Each is stopped after PNR_SECONDS or in a livelock. Raises UserError if none meets it: nothing
    slower is passed on.
    """
    tried: list[str] = []
    best = 0.0
    for attempt in range(seed, seed + SEEDS):
        try:
            placed = place(board, folder, attempt, clock_hz)
        except tools.ToolError as fault:
            tried.append(f"seed {attempt}: {fault}")
        else:
            if placed.met:
                return Placed(**{**vars(placed), "tried": tuple(tried)})
            best = max(best, placed.fmax_mhz)
            tried.append(f"seed {attempt}: {placed.fmax_mhz:.1f} MHz")
        tell(tried[-1])
    if best:
        raise UserError(
            f"timing: {clock_hz / 1e6:g} MHz not met ({'; '.join(tried)}); "
            f"give --clock {int(best)} or another --seed"
        )
    raise UserError(f"place and route: no seed succeeded ({'; '.join(tried)})")


def pack(folder: Path, seed: int) -> Path:
    """top-<seed>.asc to top.bin."""
    tools.run(tools.ICEPACK, [f"top-{seed}.asc", "top.bin"], cwd=folder, log="icepack.log")
    return folder / "top.bin"
