"""Reads the nets of a synthesised iCE40 design, and what they drive, from the JSON of Yosys."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SIMPLE = re.compile(r"[A-Za-z_]\w*")
_FLIP_FLOP, _MULTIPLIER, _EBR, _SPRAM = "SB_DFF", "SB_MAC16", "SB_RAM40", "SB_SPRAM"
# A memory reads and writes in a clock cycle in which all of these pins are 1; ~: in which it is 0.
_ENABLES = {
    _EBR: (("RE", "RCLKE"), ("WE", "WCLKE")),
    _SPRAM: (("CHIPSELECT", "~WREN"), ("CHIPSELECT", "WREN")),
}


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


def read_netlist(path: Path) -> Netlist:
    """Returns module `top` of a file that `write_json` left."""
    module = json.loads(path.read_text())["modules"]["top"]
    cells = [cell for cell in module["cells"].values() if cell["type"].startswith("SB_")]
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
            elif port in ("C", "CLK", "CLOCK", "RCLK", "WCLK"):
                clocks.update(bits)
            else:
                (inner if cell["type"] == _MULTIPLIER else loads).update(bits)
    (clock, _), *_ = clocks.most_common(1)
    nets = sorted(bit for bit in driven - clocks.keys() if isinstance(bit, int))
    return Netlist(
        clock=names[clock],
        flip_flops=sum(cell["type"].startswith(_FLIP_FLOP) for cell in cells),
        nets=tuple(Net(names[bit], loads[bit], inner[bit]) for bit in nets),
        ebr=tuple(_accesses(cells, _EBR, names)),
        spram=tuple(_accesses(cells, _SPRAM, names)),
    )


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
    cells: Sequence[Mapping[str, Any]], kind: str, names: Mapping[int | str, str]
) -> Iterator[tuple[str, str]]:
    for cell in cells:
        if cell["type"].startswith(kind):
            pins = {f"{port}": names[bits[0]] for port, bits in cell["connections"].items()}
            pins |= {f"~{port}": f"~{expression}" for port, expression in pins.items()}
            reads, writes = (" & ".join(pins[pin] for pin in way) for way in _ENABLES[kind])
            yield f"({reads})", f"({writes})"
