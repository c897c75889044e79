"""Print the tables of README.md and ARCHITECTURE.md from a build: python scripts/figures.py DIR

DIR is what `python -m bnnhw.build --board BOARD --data DATA --images 10 --out DIR` left.
"""

import json
import sys
from pathlib import Path

from bnnhw.boards import BOARDS
from bnnhw.compiler.plan import make_plan
from bnnhw.lowering.lower import lower
from bnnhw.nn import checkpoint


def resources(report):
    """Rows of what the design takes and how fast it is."""
    rows = []
    for name, entry in report["resources"].items():
        share = 100 * entry["used"] / entry["total"]
        rows.append((name.upper(), f"{entry['used']:,} of {entry['total']:,} ({share:.0f} %)"))
    timing, speed, proof = (report[key] for key in ("timing", "performance", "verification"))
    rows += [
        ("Fmax, clock", f"{timing['fmax_mhz']} MHz, {timing['clock_mhz']:g} MHz"),
        (
            "last input byte to class, bytes at the serial port's pace",
            f"{speed['cycles_per_inference']:,} cycles, {speed['latency_us'] / 1000:.2f} ms",
        ),
        (
            "all cycles of an image, stem included",
            f"{speed['busy_cycles']:,}, so {speed['fps']:.0f} images/s at most",
        ),
        ("the serial port brings (3 Mbaud)", f"{speed['link_fps']:.0f} images/s"),
        (
            "proof",
            f"bit-exact: {proof['images']} {proof['source']} test images, "
            f"{proof['tensors']} tensors",
        ),
    ]
    accuracy = report["accuracy"]
    for kind in ("float", "integer"):
        if accuracy[kind] is not None:
            rows.append(
                (f"top-1, {kind}", f"{accuracy[kind]:.2f} % of {accuracy['images']:,} test images")
            )
    return rows


def budget(plan, report):
    """Rows of the cycle budget: measured cycles, and the plan's split of them."""
    layers = report["performance"]["layers"]
    for step, layer in zip(plan.steps, layers, strict=True):
        cycles = step.cycles
        rest = layer["cycles"] - cycles.compute - cycles.memory - cycles.weights
        yield (
            step.name, f"{layer['cycles']:,}", f"{cycles.compute:,}", f"{cycles.memory:,}",
            f"{cycles.weights:,}", f"{rest:,}", cycles.bound_by,
        )  # fmt: skip


def table(header, rows):
    """Print a Markdown table."""
    print("|" + "|".join(f" {name} " for name in header) + "|")
    print("|" + "---|" * len(header))
    for row in rows:
        print("|" + "|".join(f" {value} " for value in row) + "|")
    print()


def main(folder):
    report = json.loads((Path(folder) / "report.json").read_text())
    network = lower(checkpoint.load(checkpoint.find(report["model"]["name"])))
    plan = make_plan(network, BOARDS[report["board"]])
    table((report["model"]["name"], report["device"]), resources(report))
    table(
        ("step", "cycles", "compute", "memory", "weights", "filling, waiting", "bound by"),
        budget(plan, report),
    )
    table(
        ("region", "first word", "words"),
        ((name, f"{first:,}", f"{size:,}") for name, first, size in plan.memory_map),
    )
    print(", ".join(f"{name} {version}" for name, version in report["tools"].items()))


if __name__ == "__main__":
    main(sys.argv[1])
