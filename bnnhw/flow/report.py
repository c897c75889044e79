"""report.json: what was built, how large and fast it is, and what was proved."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bnnhw.boards.numbers import Board
from bnnhw.compiler.plan import Plan
from bnnhw.flow import tools
from bnnhw.flow.implement import Placed
from bnnhw.flow.prove import Proof
from bnnhw.gateware.parameters import GROUP, LANES, TAPS
from bnnhw.network.integer import IntegerNetwork

ARRAY_BITOPS = LANES * GROUP * TAPS


def model_entry(name: str, sha256: str, network: IntegerNetwork) -> dict[str, Any]:
    """The report's `model`; weight_bits counts the binary weights."""
    shapes = network.spec.convolutions()
    return dict(
        name=name,
        sha256=sha256,
        spec=network.spec.to_dict(),
        binary_macs=sum(shape.macs for shape in shapes),
        weight_bits=sum(conv.weights.size for conv in network.convolutions),
    )


def resource_entry(
    board: Board, cells: dict[str, int] | None, placed: Placed | None
) -> dict[str, dict[str, int]] | None:
    """Used and total of each resource, of synthesis before there is a placement: then iCE40's `lut`
    stands for the logic cells."""
    if cells is None:
        return None
    total = {"lut": board.budget["lc"]} if "lc" in board.budget else {}
    total |= board.budget
    used = cells
    if placed is not None:
        used = {name: (cells | placed.utilisation)[name] for name in board.budget}
    return {name: dict(used=number, total=total[name]) for name, number in used.items()}


def performance_entry(
    plan: Plan, network: IntegerNetwork, proof: Proof | None, clock_hz: float, baud: int
) -> dict[str, Any] | None:
    """Cycles counted in the simulation of the generated Verilog, and what follows from them.

    cycles_per_inference, latency_us : from an image's last byte to its class, bytes coming over the
    board's link; the stem works as they come. busy_cycles : all cycles the engine needs for an
    image, the stem with them, which are those of `layers`; fps is the clock over them, and
    link_fps what the link brings. A bitop is a binary multiply-accumulate, a padded tap too.
    """
    if proof is None or not proof.latency:
        return None
    macs = sum(shape.macs for shape in network.spec.convolutions())
    per_cycle = macs / proof.busy
    layers = [
        dict(name=step.name, cycles=proof.step_cycles.get(index), bound_by=step.cycles.bound_by)
        for index, step in enumerate(plan.steps)
    ]
    return dict(
        cycles_per_inference=proof.latency,
        busy_cycles=proof.busy,
        latency_us=round(1e6 * proof.latency / clock_hz, 1),
        fps=round(clock_hz / proof.busy, 2),
        link_fps=round(baud / 10 / math.prod(network.spec.input), 2),
        bitops_per_cycle=round(per_cycle, 2),
        array_utilisation=round(per_cycle / ARRAY_BITOPS, 4),
        layers=layers,
    )


def verification_entry(proof: Proof | None, source: str) -> dict[str, Any] | None:
    """What was proved. source : `random` or the data set that the images are of."""
    if proof is None:
        return None
    entry = dict(
        bit_exact=proof.bit_exact, images=proof.images, source=source, tensors=proof.tensors,
        simulator=proof.simulator,
    )  # fmt: skip
    return entry if proof.bit_exact else {**entry, "mismatch": str(proof.mismatch)}


def accuracy_entry(metrics: dict[str, Any], *, as_trained: bool) -> dict[str, Any]:
    """The accuracies that the checkpoint records; the integer one only of the trained formats."""
    known = metrics.get("accuracy")
    known = known if isinstance(known, dict) else {}
    entry = {name: known.get(name) for name in ("dataset", "split", "images", "float", "integer")}
    return entry if as_trained else {**entry, "integer": None}


def timing_entry(placed: Placed | None, clock_hz: float) -> dict[str, Any]:
    """The placed design's clock; nulls before it is placed."""
    return dict(
        fmax_mhz=placed and placed.fmax_mhz,
        clock_mhz=clock_hz / 1e6,
        met=placed and placed.met,
        seed=placed and placed.seed,
        tried=list(placed.tried) if placed else [],
    )


def write(content: dict[str, Any], path: Path) -> None:
    """Write report.json, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)


def tool_entry() -> dict[str, str]:
    """Name and version of everything that made the result."""
    return tools.versions()


def show(content: dict[str, Any], console: Console) -> None:
    """Print the summary of a report."""
    table = Table(
        show_lines=False,
        title=f"{content['model']['name']} on {content['board']}",
        show_header=False,
    )
    table.add_column(style="bold")
    table.add_column()
    for name, entry in (content["resources"] or {}).items():
        used, total = entry["used"], entry["total"]
        table.add_row(name.upper(), f"{used} of {total} ({100 * used / total:.0f} %)")
    timing = content["timing"]
    if timing["fmax_mhz"]:
        row = f"{timing['fmax_mhz']} MHz, runs at {timing['clock_mhz']:g} (seed {timing['seed']})"
        table.add_row("fmax", row)
    if speed := content["performance"]:
        table.add_row("last byte to class", f"{speed['cycles_per_inference']:,} cycles, "
                      f"{speed['latency_us'] / 1000:.2f} ms")  # fmt: skip
        table.add_row("speed", f"{speed['fps']:.1f} images/s ({speed['busy_cycles']:,} cycles); "
                      f"the serial port brings {speed['link_fps']:.1f}")  # fmt: skip
        share = f"{100 * speed['array_utilisation']:.0f} % of the array"
        table.add_row("binary operations a cycle", f"{speed['bitops_per_cycle']:.0f}, {share}")
    if proof := content["verification"]:
        word = "bit-exact" if proof["bit_exact"] else f"WRONG: {proof['mismatch']}"
        images = f"{proof['images']} {proof['source']} images, {proof['tensors']} tensors"
        table.add_row("proof", f"{word}: {images}, {proof['simulator']}")
    accuracy = content["accuracy"]
    if accuracy["integer"] is not None:
        table.add_row("accuracy", f"{accuracy['integer']:.2f} % on {accuracy['dataset']}")
    console.print(table)
