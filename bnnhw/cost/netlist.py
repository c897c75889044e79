"""Reads the nets of a synthesised design, and what they drive, from the JSON of Yosys."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnhw.errors import UserError
from bnnhw.flow.families import Family

_SIMPLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Net:
    """One bit.

    name : its expression in Verilog.
    loads : input pins that it drives, except clocks, the device's pins and those of multipliers.
    multiplier_loads : input pins of multipliers that it drives.
    """

    name: str
    loads: int
    multiplier_loads: int


@dataclass(frozen=True)
class Netlist:
    """clock : the net that clocks most of the `flip_flops`. nets : what the cells drive, except
        clocks.
    ebr, spram : (reads, writes) of each memory, expressions that are 1 in the cycles in which it
        does.
    """

    clock: str
    flip_flops: int
    nets: tuple[Net, ...]
    ebr: tuple[tuple[str, str], ...]
    spram: tuple[tuple[str, str], ...]


def read_netlist(path: Path, family: Family) -> Netlist:
    """Returns module `top` of a file that `write_json` left.

    Raises UserError for a family whose netlists cannot be simulated.
    """
    pins = family.pins_of_cells
    if pins is None:
        raise UserError(f"activity: netlists of {family.nextpnr.program} cannot be simulated")
    module = json.loads(path.read_text())["modules"]["top"]
    cells = [cell for cell in module["cells"].values() if cell["type"][0] != "$"]
    names = dict(_names(module["netnames"]))
    loads: Counter[int | str] = Counter()
    inner: Counter[int | str] = Counter()
    clocks: Counter[int | str] = Counter()
    driven: set[int | str] = set()
    for cell in cells:
        for port, bits in cell["connections"].items():
            direction = cell["port_directions"][port]
            if direction == "output":
                driven.update(bits)
            elif direction != "input":
                continue  # a pin of the device
            elif port in pins.clocks:
                clocks.update(bits)
            else:
                (inner if _is(cell, family, "dsp") else loads).update(bits)
    (clock, _), *_ = clocks.most_common(1)
    nets = sorted(bit for bit in driven - clocks.keys() if isinstance(bit, int))
    return Netlist(
        clock=names[clock],
        flip_flops=sum(_is(cell, family, "ff") for cell in cells),
        nets=tuple(Net(names[bit], loads[bit], inner[bit]) for bit in nets),
        **{
            memory: tuple(
                _accesses([cell for cell in cells if _is(cell, family, memory)], enables, names)
            )
            for memory, enables in pins.enables.items()
        },
    )


def _is(cell: Mapping[str, Any], family: Family, resource: str) -> bool:
    """Whether a cell takes some of a resource."""
    return any(cell["type"].startswith(kind) for kind in family.cells[resource])


def _names(netnames: Mapping[str, Any]) -> Iterator[tuple[int | str, str]]:
    """Yields the expression of every bit and constant. The name of a single bit has no index."""
    yield from (("0", "1'b0"), ("1", "1'b1"), ("x", "1'b0"))
    for name, net in netnames.items():
        escaped = name if _SIMPLE.fullmatch(name) else f"\\{name} "
        for index, bit in enumerate(net["bits"]):
            if isinstance(bit, int):
                many = len(net["bits"]) > 1
                yield bit, f"{escaped}[{index + net.get('offset', 0)}]" if many else escaped


def _accesses(
    memories: Sequence[Mapping[str, Any]],
    enables: tuple[tuple[str, ...], tuple[str, ...]],
    names: Mapping[int | str, str],
) -> Iterator[tuple[str, str]]:
    for cell in memories:
        pins = {f"{port}": names[bits[0]] for port, bits in cell["connections"].items()}
        pins |= {f"~{port}": f"~{expression}" for port, expression in pins.items()}
        reads, writes = (" & ".join(pins[pin] for pin in way) for way in enables)
        yield f"({reads})", f"({writes})"
