"""Which module of a design takes how much of it, from the names in Yosys's netlist."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path

from bnnhw.flow.families import Family

TOP, ENGINE, PINS, OTHER = "top", "device.engine", "pins", "other"
_NUMBER = re.compile(r"\$\d+$")  # that tells signals of one name apart
_MODULE = re.compile(r"^module \\(\S+)$", re.MULTILINE)


def count_modules(folder: Path, family: Family) -> dict[str, dict[str, int]]:
    """Returns {module: {resource: how many}} of `top.json` in a folder, the largest first.

    A cell that the tools made belongs to the module whose name its own begins with, of those in
    `top.il`. Told apart are the modules of the device and those of its engine, as `engine.array`.
    """
    known = {
        name.removeprefix(f"{TOP}.") for name in _MODULE.findall((folder / "top.il").read_text())
    }
    cells = json.loads((folder / "top.json").read_text())["modules"][TOP]["cells"]
    found: dict[str, Counter[str]] = {}
    for name, cell in cells.items():
        for resource, sizes in family.cells.items():
            for prefix, size in sizes.items():
                if cell["type"].startswith(prefix):
                    found.setdefault(module_of(name, known), Counter())[resource] += size
    order = sorted(found, key=lambda name: (-found[name]["lut"], -found[name]["ff"], name))
    return {name: {part: found[name][part] for part in family.cells} for name in order}


def module_of(cell: str, known: Set[str]) -> str:
    """Returns the module of a cell's name, `engine.array` of `device.engine.array.dot_0.sum[4]`."""
    parts = cell.split(".")
    depth = 3 if cell.startswith(f"{ENGINE}.") else 2
    names = [".".join(parts[:count]) for count in range(1, min(depth, len(parts) - 1) + 1)]
    own = next((name for name in reversed(names) if name in known), None)
    if own is None:
        return OTHER
    return PINS if own.endswith("_buffer") else _NUMBER.sub("", own.removeprefix("device."))


def shares(modules: Mapping[str, Mapping[str, int]], resource: str) -> list[tuple[str, int, float]]:
    """Returns (module, how many, share of all) of one resource, without those that have none."""
    total = sum(part[resource] for part in modules.values()) or 1
    found = [(name, part[resource], part[resource] / total) for name, part in modules.items()]
    return sorted((row for row in found if row[1]), key=lambda row: -row[1])
