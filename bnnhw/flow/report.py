"""report.json: what was built, how large and fast it is, and what was proved."""

from __future__ import annotations

import json
import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnnhw.boards.numbers import Board
from bnnhw.compiler.plan import Plan
from bnnhw.flow import tools
from bnnhw.flow.implement import Placed
from bnnhw.flow.prove import Proof
from bnnhw.gateware.parameters import GROUP, LANES, TAPS
from bnnhw.network.integer import IntegerNetwork

ARRAY_BITOPS = LANES * GROUP * TAPS


def model_entry(
    name: str, sha256: str, network: IntegerNetwork, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Returns the report's `model`. weight_bits counts the binary weights.

    classes : their names, or none where the file does not say them.
    """
    shapes = network.spec.convolutions()
    return dict(
        classes=list(classes),
        name=name,
        sha256=sha256,
        spec=network.spec.to_dict(),
        binary_macs=sum(shape.macs for shape in shapes),
        weight_bits=sum(conv.weights.size for conv in network.convolutions),
    )


def format_entries(network: IntegerNetwork) -> list[dict[str, Any]]:
    """Returns of each binary convolution its output's shape, size, and the stream it makes."""
    width = network.spec.formats.residual_width
    return [
        dict(
            name=shape.name,
            output=[shape.out_height, shape.out_width, shape.out_channels],
            weights=layer.weights.size,
            macs=shape.macs,
            width=width,
            fraction=shape.fraction,
        )
        for shape, layer in zip(network.spec.convolutions(), network.convolutions, strict=True)
    ]


def resource_entry(
    board: Board, cells: dict[str, int] | None, placed: Placed | None
) -> dict[str, dict[str, int]] | None:
    """Returns used and total of each resource, or None before synthesis.

    Before there is a placement the figures are those of synthesis. iCE40's `lut` then stands for
    the logic cells.
    """
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
    """Returns the cycles that the simulation counted, and what follows from them.

    cycles_per_inference, latency_us : from an image's last byte to its class. Bytes come over the
        board's link, and the stem works as they come.
    busy_cycles : all cycles that the engine needs for an image, those of the stem too; `layers` has
        its parts.
    fps, link_fps : images a second by busy_cycles, and by what the link brings.
    bitops_per_cycle : binary multiply-accumulates a cycle, those of padded taps too.
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
    """Returns what was proved. source : `random`, or the data set that the images are of."""
    if proof is None:
        return None
    entry = dict(
        bit_exact=proof.bit_exact, images=proof.images, source=source, tensors=proof.tensors,
        simulator=proof.simulator,
    )  # fmt: skip
    return entry if proof.bit_exact else {**entry, "mismatch": str(proof.mismatch)}


def accuracy_entry(
    metrics: dict[str, Any], measured: dict[str, Any] | None, *, as_trained: bool
) -> dict[str, Any]:
    """Returns the accuracies that the checkpoint records, and what the build has measured.

    The recorded integer accuracy is only there where the formats are those of the training.
    measured : dataset, split, images and integer, or None.
    """
    known = metrics.get("accuracy")
    known = known if isinstance(known, dict) else {}
    entry = {name: known.get(name) for name in ("dataset", "split", "images", "float", "integer")}
    for name in ("float", "integer"):
        if isinstance(entry[name], bool) or not isinstance(entry[name], int | float):
            entry[name] = None
    if not as_trained:
        entry["integer"] = None
    return entry | dict(measured=measured)


def accuracy_words(entry: dict[str, Any]) -> list[str]:
    """Returns what is known of the accuracy: of what numbers, on which images, and what is not."""
    found = []
    kinds = {"integer": "as integers", "float": "in float"}
    for kind, words in kinds.items():
        if entry[kind] is not None:
            found.append(f"{entry[kind]:.2f} % {words}")
    if found:
        images = f"{entry['images']} {entry['split']} images of {entry['dataset']}"
        found = [f"{', '.join(found)}; {images}"]
    measured = entry["measured"]
    if measured is not None:
        images = f"first {measured['images']} {measured['split']} images"
        found.append(
            f"{measured['integer']:.2f} % as integers; {images} of {measured['dataset']}, now"
        )
    elif entry["integer"] is None:
        found.append(f"{'of the integers ' * bool(found)}unknown: give --data")
    return found


def timing_entry(placed: Placed | None, clock_hz: float) -> dict[str, Any]:
    """Returns the placed design's clock, nulls before it is placed."""
    return dict(
        fmax_mhz=placed and placed.fmax_mhz,
        clock_mhz=clock_hz / 1e6,
        met=placed and placed.met,
        seed=placed and placed.seed,
        tried=list(placed.tried) if placed else [],
    )


def text(content: dict[str, Any]) -> str:
    """Returns the text of report.json."""
    return json.dumps(content, indent=2) + "\n"


def tool_entry() -> dict[str, str]:
    """Returns name and version of everything that made the result."""
    return tools.versions()


def show(content: dict[str, Any], console: Console) -> None:
    """Print the summary of a report."""
    table = Table(
        show_lines=False,
        title=escape(f"{content['model']['name']} on {content['board']}"),
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
        word = "bit-exact" if proof["bit_exact"] else escape(f"WRONG: {proof['mismatch']}")
        images = f"{proof['images']} {proof['source']} images, {proof['tensors']} tensors"
        table.add_row("proof", f"{word}: {images}, {proof['simulator']}")
    for words in accuracy_words(content["accuracy"]):
        table.add_row("accuracy", escape(words))
    console.print(table)
