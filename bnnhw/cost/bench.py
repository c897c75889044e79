"""Builds, proves and measures the network of one repair method on a board."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from bnnhw import boards, datasets, gateware
from bnnhw.boards.numbers import Board
from bnnhw.compiler.plan import DoesNotFit, Plan, check_methods
from bnnhw.compiler.traffic import traffic
from bnnhw.cost import activity, energy, netlist
from bnnhw.errors import UserError
from bnnhw.flow import implement, stages, tools
from bnnhw.flow.families import FAMILIES
from bnnhw.jobs.files import Kept, read_sealed, write_sealed
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.untrained import untrained
from bnnhw.sim import toggles

BUILT, OVER, REFUSED, WRONG = "built", "does not fit", "refused", "not bit-exact"
UNPLACED = "not placed"
PLACE_SECONDS = 600.0  # more than a build's, since other methods are at work beside it
SPARE_SEEDS = 2  # tried where placements fail
_PLACING = Path(str(implement.__file__))
_COUNTING = (*(Path(str(m.__file__)) for m in (activity, netlist, toggles)), toggles.PROGRAM)
_ALONE = threading.Lock()  # the simulator's environment is the process's


@dataclass(frozen=True)
class Case:
    """A network whose cost is asked. Two equal cases have the same file.

    method, settings : its name, and what differs from the baseline.
    seeds : how many placements are made, from seed 1 on; another seed replaces one that fails. 0
        stops after synthesis.
    images : how many random images the proof runs, and how many the estimate of energy.
    energy : whether the energy is estimated. data : the data set that it is of. resize : whether
        its images are resized to what the network takes.
    """

    method: str
    settings: Mapping[str, Any]
    spec: NetworkSpec
    board: str
    seeds: int
    images: int
    out: Path
    energy: bool = True
    data: Path | None = None
    resize: bool = False

    @cached_property
    def path(self) -> Path:
        shape = self.spec.to_dict()
        asks = [shape, self.board, self.seeds, self.images, self.energy, str(self.data)]
        asked = json.dumps(asks + [True] * self.resize)
        slug = re.sub(r"[^a-z0-9_]+", "-", self.method)
        return self.out / "rows" / f"{slug}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}.json"

    def row(self) -> dict[str, Any]:
        """Returns the row that `perform` left."""
        row = read_sealed(self.path)
        if row is None:
            raise UserError(f"{self.path}: damaged or gone; the same command makes it anew")
        return row


def perform(case: Case) -> None:
    """Leave the row of a case. A row that stands is kept if it measured the same hardware.

    The weights are random; no cell and no cycle depends on them. Raises UserError where a tool
    fails. A network that cannot be built has a row that says why.
    """
    with _ALONE:
        started = time.monotonic()
        head: dict[str, Any] = dict(
            method=case.method, board=case.board, settings=dict(case.settings),
            spec=case.spec.to_dict(),
        )  # fmt: skip
        try:
            check_methods(case.spec.repair)
            network = lower(untrained(case.spec), exponents=False)
            plan = stages.make_plan(network, stages.board(case.board))
        except DoesNotFit as fault:
            over = {part.name: part.used - part.available for part in fault.resources}
            over = {name: number for name, number in over.items() if number > 0}
            row = head | dict(status=OVER, reason=str(fault), over=over)
        except UserError as fault:
            row = head | dict(status=REFUSED, reason=str(fault))
        else:
            design = _digest(plan)
            if _stands(read_sealed(case.path), design):
                return
            row = head | dict(design=design) | _Bench(case, plan).measure()
        row["measured"] = date.today().isoformat()
        row["seconds"] = round(time.monotonic() - started, 1)
        write_sealed(case.path, row)


def _stands(row: Mapping[str, Any] | None, design: str) -> bool:
    """Returns whether a row stands. A placement that a busy machine stopped is tried again."""
    return row is not None and row.get("design") == design and row["status"] != UNPLACED


def _digest(plan: Plan) -> str:
    """Returns a digest of all that shapes a row: program, parameters, gateware and tools."""
    result = hashlib.sha256(plan.image.tobytes())
    asked = [asdict(plan.parameters), plan.image_base, tools.versions(), repr(FAMILIES)]
    result.update(json.dumps(asked).encode())
    folders = [Path(str(package.__file__)).parent for package in (boards, gateware)]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    for file in (*files, _PLACING, *_COUNTING, Path(__file__), Path(energy.__file__)):
        result.update(file.read_bytes())
    return result.hexdigest()


class _Bench:
    """Builds one plan, in a folder that this process keeps for all plans of the same engine.

    The folder's compiled simulator serves all of them. Cells and placements are kept beside the
    rows for every process, by a digest of the generated design.
    """

    def __init__(self, case: Case, plan: Plan) -> None:
        self.case, self.plan = case, plan
        self.board = stages.board(case.board)
        engine = json.dumps([asdict(plan.parameters), plan.image_base, len(plan.image)])
        name = hashlib.sha256(engine.encode()).hexdigest()[:16]
        self.folder = case.out / "work" / f"{platform.node()}-{os.getpid()}" / name

    def measure(self) -> dict[str, Any]:
        """Returns all figures of the row that can be had."""
        self.design = stages.write_design(self.plan, self.board, self.folder, bound=False)
        spec = self.plan.network.spec
        proof = stages.prove(self.design, datasets.random_pixels(spec.input, self.case.images))
        if not proof.bit_exact:
            return dict(status=WRONG, reason=str(proof.mismatch))
        cells = self._cells()
        row: dict[str, Any] = dict(
            hardware=self.hardware, cells=cells,
            cycles=dict(busy=proof.busy, latency=proof.latency),
            traffic=traffic(self.plan), memory_words=self._memory_words(),
            steps=len(self.plan.steps),
            verification=dict(
                bit_exact=True, images=proof.images, tensors=proof.tensors,
                simulator=proof.simulator,
            ),
            tools=tools.versions(),
        )  # fmt: skip
        row |= self._placed(cells)
        fmax = row.get("fmax_mhz", {}).get("max", math.inf)
        clock_mhz = min(self.design.clocking.hz / 1e6, fmax)
        row |= dict(clock_mhz=clock_mhz, fps=round(1e6 * clock_mhz / proof.busy, 2))
        if self.case.energy and row["status"] == BUILT and self.board.energy:
            row["energy"] = self._energy(clock_mhz)
        return row

    def _energy(self, clock_mhz: float) -> dict[str, Any]:
        """Returns the estimate. Equal hardware with equal memory contents runs once."""
        network = self.plan.network
        case = self.case
        images, source = activity.choose_images(network.spec, case.images, case.data, case.resize)
        contents = hashlib.sha256(self.design.flash.read_bytes() + images.tobytes())
        for file in _COUNTING:
            contents.update(file.read_bytes())
        path = self.shared / f"activity-{contents.hexdigest()}.json"
        counted = read_sealed(path)
        if counted is None:
            self._ensure_netlist()
            divisor = self.design.clocking.divisor
            found = activity.count_activity(network, self.board, images, divisor, self.folder)
            counted = asdict(found)
            write_sealed(path, counted)
        known = activity.Activity(**counted)
        return energy.estimate(known, traffic(self.plan), source, clock_mhz * 1e6, self.board)

    @cached_property
    def hardware(self) -> str:
        """The digest of the generated design and the tools. Memory contents have no part in it."""
        family = FAMILIES[self.board.family]
        result = hashlib.sha256(json.dumps([tools.versions(), repr(family)]).encode())
        for file in (
            self.folder / "top.il",
            self.folder / f"top.{self.board.constraints}",
            _PLACING,
        ):
            result.update(file.read_bytes())
        return result.hexdigest()

    @property
    def shared(self) -> Path:
        return self.case.out / "hardware" / self.hardware

    def _cells(self) -> dict[str, int]:
        """Returns the cells of the netlist. Equal hardware, of whatever method, is synthesised
        once.
        """
        path = self.shared / "cells.json"
        cells = read_sealed(path)
        if cells is None:
            cells = self._synthesise()
            write_sealed(path, cells)
        return cells

    def _synthesise(self) -> dict[str, int]:
        """Returns the cells of the netlist, which is made whether or not it stands."""
        found: dict[str, int] = {}
        self._netlist.forget()
        self._netlist.make(lambda: found.update(stages.synthesise(self.design)))
        return found

    @property
    def _netlist(self) -> Kept:
        products = (self.folder / "top.json", self.folder / "netlist.v")
        return Kept(self.folder / "netlist.kept", self.hardware, products)

    def _ensure_netlist(self) -> None:
        """Make the netlist in this process's folder; another process may have found the cells."""
        if not self._netlist.stands():
            self._synthesise()

    def _memory_words(self) -> int:
        """Returns the words of the large memory that all maps and weights take."""
        return max(first + size for _, first, size in self.plan.memory_map)

    def _placed(self, cells: dict[str, int]) -> dict[str, Any]:
        """Returns status, logic cells and clock of every seed; after synthesis alone only the
        status.
        """
        over = _excess(self.board, cells | {"lc": cells["lut"]})
        if over or not self.case.seeds:
            return _fits(over)
        results: list[dict[str, Any]] = []
        faults: list[str] = []
        for seed in range(1, self.case.seeds + SPARE_SEEDS + 1):
            if len(results) == self.case.seeds:
                break
            try:
                results.append(self._place(seed))
            except tools.ToolHopeless as fault:
                faults.append(f"seed {seed}: {fault}")
            except tools.ToolError as fault:
                faults.append(f"seed {seed}: {fault}")
                log = (self.folder / f"nextpnr-{seed}.log").read_text(errors="replace")
                if over := _excess(self.board, implement.packed(self.board, log)):
                    return _fits(over)
        if not results:
            return dict(status=UNPLACED, reason="; ".join(faults))
        clocks = [entry["fmax_mhz"] for entry in results]
        fmax = dict(median=round(median(clocks), 2), min=min(clocks), max=max(clocks))
        return dict(
            status=BUILT, cells=cells | results[0]["utilisation"], fmax_mhz=fmax,
            placements=results, unplaced=faults,
        )  # fmt: skip

    def _place(self, seed: int) -> dict[str, Any]:
        """Returns a placement, or raises if there is none. Equal hardware, of whatever method,
        shares it.
        """
        path = self.shared / f"seed-{seed}.json"
        entry = read_sealed(path)
        if entry is None:
            entry = self._try(seed)
            write_sealed(path, entry)
        if "fault" in entry:
            raise tools.ToolHopeless(entry["fault"])
        return entry

    def _try(self, seed: int) -> dict[str, Any]:
        self._ensure_netlist()
        try:
            placed = stages.place(self.design, seed, PLACE_SECONDS)
        except tools.ToolHopeless as fault:
            return dict(seed=seed, fault=str(fault))
        return dict(seed=seed, fmax_mhz=placed.fmax_mhz, utilisation=placed.utilisation)


def _excess(board: Board, used: Mapping[str, int]) -> dict[str, int]:
    """Returns the resources that the device has too little of, and how much is missing."""
    more = {name: used.get(name, 0) - total for name, total in board.budget.items()}
    return {name: number for name, number in more.items() if number > 0}


def _fits(over: Mapping[str, int]) -> dict[str, Any]:
    if not over:
        return dict(status=BUILT)
    needs = ", ".join(f"{number} {name.upper()}" for name, number in over.items())
    return dict(status=OVER, reason=f"too large for the device by {needs}", over=dict(over))
