"""Makes a board's design by its family's tools: netlist, placed design, bitstream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bnnhw.boards.numbers import Board
from bnnhw.errors import UserError
from bnnhw.flow import tools
from bnnhw.flow.families import FAMILIES
from bnnhw.jobs.files import read_json, write_text

LIVELOCK_LINES, LIVELOCK_ROUNDS = 12, 300  # as many alike, of each of nextpnr's routers
MENDING_ROUNDS = 40  # of router2, after all wires were right but some arcs were not
SEEDS = 4


@dataclass(frozen=True)
class Placed:
    """The result of place and route.

    seed : the one that won. fmax_mhz : of the slowest clock.
    utilisation : how many of each of the family's sites are used.
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
    """Returns {cell type: number}, from the text of Yosys's `stat`."""
    return {
        name: int(count)
        for count, name in re.findall(r"^ +(\d+)(?: +\S+)? +([A-Z]\w+)$", statistics, re.MULTILINE)
    }


def synthesise(board: Board, folder: Path) -> dict[str, int]:
    """Make top.json and, for simulators, netlist.v from top.il in `folder`.

    Returns how many of each of the family's resources the netlist takes, "lut" and "ff" first.
    """
    family = FAMILIES[board.family]
    for old in ("top.stat", "top.json", "netlist.v"):
        (folder / old).unlink(missing_ok=True)
    write_text(folder / "top.ys", family.synthesis.format(options=" ".join(board.synth_opts)))
    tools.run(tools.YOSYS, ["-q", "-l", "yosys.log", "top.ys"], cwd=folder, log="yosys.out")
    for product in ("top.json", "netlist.v"):
        tools.check_whole(folder / product)
    found = cell_counts((folder / "top.stat").read_text(encoding="utf-8"))

    def count(sizes: Mapping[str, int]) -> int:
        return sum(
            size * number
            for prefix, size in sizes.items()
            for name, number in found.items()
            if name.startswith(prefix)
        )

    return {resource: count(sizes) for resource, sizes in family.cells.items()}


def livelock(log: str) -> str | None:
    """Returns why nextpnr's router gets nowhere, or None while it may get somewhere.

    It goes round in a circle where many of its log's lines leave as much as before, or more than
    was left once. A line of router1 is `Info: iterations | ... | arcs remaining | ...`, one each
    thousand iterations. A line of router2 is `Info: iter=... wires=... overused=... ...`, one each.
    """
    one = r"^Info: +\d+ \|[^|]*\|[^|]*\| +(\d+)\|"
    two = r"^Info: +iter=\d+ (wires=\d+ overused=(?!0 )\d+)"
    for pattern, lines, what in (
        (one, LIVELOCK_LINES, "{} arcs left"),
        (two, LIVELOCK_ROUNDS, "{} in all rounds"),
    ):
        last = re.findall(pattern, log, re.MULTILINE)[-lines:]
        if len(last) == lines and len(set(last)) == 1:
            return f"its router is in a livelock with {what.format(last[0])}"
    rounds = [int(wires) for wires in re.findall(r"^Info: +iter=.* overused=(\d+)", log, re.M)]
    if 0 in rounds[:-MENDING_ROUNDS] and 0 not in rounds[-MENDING_ROUNDS:]:
        return f"its router has not mended the last arcs in {MENDING_ROUNDS} rounds"
    last = rounds[-LIVELOCK_ROUNDS:]
    if len(last) == LIVELOCK_ROUNDS and last[0] < min(last[1:]):
        return f"its router has been worse than {last[0]} overused wires for {len(last)} rounds"
    return None


def packed(board: Board, log: str) -> dict[str, int]:
    """Returns how many of the family's sites are used, as far as a log of nextpnr says it.

    A design that is too large has no report, but it has this table in its log.
    """
    sites = FAMILIES[board.family].sites.items()
    found = {name: re.search(rf"\b{site}: +(\d+)/", log) for name, site in sites}
    return {name: int(match[1]) for name, match in found.items() if match}


def place(
    board: Board, folder: Path, seed: int, clock_hz: float, seconds: float | None = None
) -> Placed:
    """Make a placed design of top.json with one seed, whether or not it meets the clock.

    seconds : after which it is given up; None is the family's time.
    Raises ToolStopped then or in a livelock, ToolError where nextpnr fails.
    """
    family, pins = FAMILIES[board.family], board.constraints
    report = folder / f"pnr-{seed}.json"
    placed_file = folder / f"top-{seed}.{family.placed}"
    for old in (report, placed_file):
        old.unlink(missing_ok=True)
    tools.run(
        family.nextpnr,
        [*board.nextpnr_opts, "--json", "top.json", f"--{pins}", f"top.{pins}",
         f"--{family.placed}", placed_file.name, "--freq", f"{clock_hz / 1e6:g}",
         "--seed", str(seed), "--timing-allow-fail", "--report", report.name],
        cwd=folder, log=f"nextpnr-{seed}.log", timeout=seconds or family.pnr_seconds,
        hopeless=livelock,
    )  # fmt: skip
    found = read_json(report)
    used = found["utilization"]
    return Placed(
        seed=seed,
        fmax_mhz=round(min(clock["achieved"] for clock in found["fmax"].values()), 2),
        clock_mhz=clock_hz / 1e6,
        utilisation={name: used[cell]["used"] for name, cell in family.sites.items()},
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
    """Make a placed design of top.json that meets the clock. Tries SEEDS seeds from `seed` on.

    Each seed is stopped at the family's time limit or in a livelock. Raises UserError if none meets
    the clock: nothing slower is passed on.
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


def pack(board: Board, folder: Path, seed: int) -> Path:
    """Make the bitstream of the design that `place` left of a seed. Returns its path."""
    family = FAMILIES[board.family]
    product = f"top.{family.bitstream}"
    arguments = [*board.pack_opts, f"top-{seed}.{family.placed}", product]
    (folder / product).unlink(missing_ok=True)
    tools.run(family.packer, arguments, cwd=folder, log="pack.log")
    return folder / product
