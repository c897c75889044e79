"""The costs of methods against the baseline's, as JSON, as CSV and as a Markdown table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from bnnhw.cost.bench import BUILT
from bnnhw.cost.energy import COMPONENTS
from bnnhw.datasets import RANDOM_SEED
from bnnhw.network.methods import BASE
from bnnhw.network.repair import CATEGORIES, COSTS

CELLS = ("lc", "lut", "ff", "ebr", "spram", "dsp")
FIGURES = dict(
    lc="LC", lut="LUT", ff="FF", ebr="EBR", spram="SPRAM", dsp="DSP", fmax_mhz="Fmax, MHz",
    busy_cycles="cycles", latency_cycles="cycles after the last byte", fps="images/s",
    reads="reads", writes="writes", memory_words="words of memory",
    energy_uj="energy, µJ, estimate", accuracy="top-1, %",
)  # fmt: skip
GREATER = ("fmax_mhz", "fps", "accuracy")  # figures of which more is better
WAYS = ("reads", "writes")
KINDS = ("program", "weights", "image", "features", "residuals")
NOT_TRAINED = "not trained"
Entry = dict[str, Any]


def entries(
    rows: Sequence[Mapping[str, Any]], accuracy: Mapping[str, Mapping[str, Any]]
) -> list[Entry]:
    """Returns an entry for each row: its figures, their differences from the baseline's, its
    accuracy.

    rows : of `bnnhw.cost.bench`. accuracy : by method.
    kind : the method's cost by the catalogue. cells_equal : whether every cell count is the
        baseline's,
    or None where either was not built. larger : bnnhw.cost.larger puts an entry there.
    """
    categories = {category.name: category for category in CATEGORIES}
    base = next((_figures(row, accuracy) for row in rows if row["method"] == BASE.name), {})
    result = []
    for row in rows:
        mine = _figures(row, accuracy)
        theirs = {} if row["method"] == BASE.name else base
        delta = {
            name: round(one - other, 2)
            for name in FIGURES
            if (one := mine[name]) is not None and (other := theirs.get(name)) is not None
        }
        costs = [categories[name].cost_of(value) for name, value in row["settings"].items()]
        kind = max(costs, key=COSTS.index, default="")
        equal = [delta[name] == 0 for name in CELLS if name in delta]
        result.append(
            dict(method=row["method"], board=row.get("board"), settings=row["settings"], kind=kind,
                 status=row["status"])
            | mine
            | dict(
                fmax_range=_range(row.get("fmax_mhz")), delta=delta,
                accuracy_range=accuracy.get(row["method"]), traffic=row.get("traffic"),
                energy=row.get("energy"),
                cells_equal=all(equal) if equal else None, hardware=row.get("hardware"),
                measured=row["measured"],
                bit_exact=row.get("verification", {}).get("bit_exact"),
                reason=row.get("reason"), over=row.get("over", {}),
                placements=row.get("placements", []), unplaced=row.get("unplaced", []), larger=None,
            )
        )  # fmt: skip
    return result


def _figures(
    row: Mapping[str, Any], accuracy: Mapping[str, Mapping[str, Any]]
) -> dict[str, float | None]:
    """Returns every figure of a row by its name in FIGURES; None where there is no figure."""
    cells, cycles = row.get("cells", {}), row.get("cycles", {})
    found = {name: cells.get(name) for name in CELLS}
    found |= dict(fmax_mhz=row.get("fmax_mhz", {}).get("median"))
    found |= {f"{name}_cycles": cycles.get(name) for name in ("busy", "latency")}
    found |= {name: row.get(name) for name in ("fps", "memory_words")}
    for way in WAYS:
        words = row.get("traffic", {}).get(way)
        found[way] = sum(words.values()) if words else None
    found["energy_uj"] = row.get("energy", {}).get("total")
    return found | dict(accuracy=accuracy.get(row["method"], {}).get("mean"))


def _range(fmax: Mapping[str, float] | None) -> list[float] | None:
    return [fmax["min"], fmax["max"]] if fmax else None


def comma_separated(table: Sequence[Entry]) -> str:
    """Returns a CSV with a line for each method and board. A missing figure is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    deltas = [f"delta_{name}" for name in FIGURES]
    moved = [f"{kind}_{way}" for way in WAYS for kind in KINDS]
    parts = [f"energy_uj_{name}" for name in COMPONENTS]
    writer.writerow(
        ["method", "board", "kind", "status", *FIGURES, *deltas, "fmax_min", "fmax_max",
         "accuracy_min", "accuracy_max", "accuracy_runs", *moved, *parts, "bit_exact",
         "cells_equal", "reason"]
    )  # fmt: skip
    for entry in [*table, *elsewhere(table)]:
        accuracy, traffic = entry["accuracy_range"] or {}, entry["traffic"] or {}
        energy = (entry["energy"] or {}).get("microjoules", {})
        writer.writerow(
            [entry["method"], entry["board"], entry["kind"], entry["status"]]
            + [entry[name] for name in FIGURES]
            + [entry["delta"].get(name) for name in FIGURES]
            + (entry["fmax_range"] or [None, None])
            + [accuracy.get(name) for name in ("min", "max", "runs")]
            + [traffic.get(way, {}).get(kind) for way in WAYS for kind in KINDS]
            + [energy.get(name) for name in COMPONENTS]
            + [entry["bit_exact"], entry["cells_equal"], entry["reason"]]
        )
    return text.getvalue()


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def difference(value: float) -> str:
    return f"{value:+,}" if isinstance(value, int) else f"{value:+,.2f}"


def parts(entry: Entry, name: str) -> tuple[str, str]:
    """Returns a figure, and its difference from the baseline's or "" where they are equal."""
    value, delta = entry[name], entry["delta"].get(name)
    if value is None:
        return (NOT_TRAINED if name == "accuracy" else "-"), ""
    text = number(value)
    if name == "fmax_mhz" and entry["fmax_range"][0] != entry["fmax_range"][1]:
        low, high = entry["fmax_range"]
        text += f" [{low:.2f} to {high:.2f}]"
    if name == "accuracy" and entry["accuracy_range"]["runs"] > 1:
        known = entry["accuracy_range"]
        text += f" [{known['min']:.2f} to {known['max']:.2f}]"
    return text, difference(delta) if delta else ""


def cell(entry: Entry, name: str) -> str:
    """Returns the figure and its difference as one text."""
    text, more = parts(entry, name)
    return f"{text} ({more})" if more else text


def columns(table: Sequence[Entry]) -> list[str]:
    """Returns the figures that any method has, accuracy always among them."""
    return [n for n in FIGURES if n == "accuracy" or any(e[n] is not None for e in table)]


def measured(table: Sequence[Entry]) -> list[Entry]:
    """Returns the entries with figures of the hardware."""
    return [entry for entry in table if entry["lut"] is not None]


def elsewhere(table: Sequence[Entry]) -> list[Entry]:
    """Returns the entries on larger boards."""
    return [entry["larger"] for entry in table if entry["larger"]]


def larger(table: Sequence[Entry]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns for each larger board the title, the columns and the rows of a table."""
    result = []
    there = elsewhere(table)
    for board in dict.fromkeys(entry["board"] for entry in there):
        rows = [entry for entry in table if entry["larger"] and entry["larger"]["board"] == board]
        mine = measured([entry["larger"] for entry in rows])
        shown = [name for name in columns(mine) if name != "accuracy"]
        title = f"On the {board}, against the baseline there, at {there[0]['clock_mhz']:g} MHz"
        texts = [
            [entry["method"], lacks(entry["over"]), *(cell(entry["larger"], n) for n in shown)]
            for entry in rows
        ]
        result.append((title, ["method", "too large by", *(FIGURES[n] for n in shown)], texts))
    return result


def lacks(over: Mapping[str, int]) -> str:
    """Returns how much more is needed of what, as text."""
    return ", ".join(f"{more:,} {FIGURES.get(name, name)}" for name, more in over.items())


def remarks(table: Sequence[Entry], clock_mhz: float) -> list[str]:
    """Returns why methods were not built, and what did not go as it should."""
    lines = [f"{e['method']}: {e['status']}: {e['reason']}" for e in table if e["status"] != BUILT]
    lines += [
        f"{e['method']} on the {e['board']}: {e['status']}: {e['reason']}"
        for e in elsewhere(table)
        if e["status"] != BUILT
    ]
    lines += [
        f"{e['method']}: no placement reaches {clock_mhz:g} MHz; images/s are at its fastest clock"
        for e in table
        if e["fmax_range"] and e["fmax_range"][1] < clock_mhz
    ]
    return lines + [f"{e['method']}: {line}" for e in table for line in e["unplaced"]]


def markdown(content: Mapping[str, Any]) -> str:
    """Returns the table, and under it why some methods have no row."""
    table = content["methods"]
    shown = columns(table)
    titles = ["method", "cost", *(FIGURES[name] for name in shown), "bit-exact", "cells"]
    lines = [
        f"# Cost of repair methods: {content['network']} on {content['board']}",
        "",
        *explanation(content),
        "",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
    ]
    for entry in measured(table):
        row = [entry["method"], entry["kind"], *(cell(entry, name) for name in shown)]
        lines.append(f"| {' | '.join([*row, *_proved(entry)])} |")
    notes = [f"- {line}" for line in remarks(table, content["clock_mhz"])]
    lines += ["", *_accesses(table)]
    for title, names, rows in larger(table):
        lines += ["", f"## {title}", "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [*([""] if notes else []), *notes, ""]
    return "\n".join([*lines, *(f"- {what}: {text}" for what, text in provenance(content))]) + "\n"


def _accesses(table: Sequence[Entry]) -> list[str]:
    """Returns the table of what is read from the large memory and written to it."""
    ways = [(way, kind) for way in WAYS for kind in KINDS]
    moved = [e["traffic"] for e in measured(table)]
    ways = [(way, kind) for way, kind in ways if any(kind in words[way] for words in moved)]
    titles = ["accesses for an image", *(f"{kind}, {way}" for way, kind in ways)]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for entry in measured(table):
        words = [f"{entry['traffic'][way].get(kind, 0):,}" for way, kind in ways]
        lines.append(f"| {' | '.join([entry['method'], *words])} |")
    return lines


def _proved(entry: Entry) -> tuple[str, str]:
    equal = {True: "as the baseline", False: "differ", None: ""}
    return ("yes" if entry["bit_exact"] else "no", equal[entry["cells_equal"]])


def explanation(content: Mapping[str, Any]) -> list[str]:
    """Returns what the figures are, one or two sentences a line."""
    seeds, images = content["seeds"], content["images"]
    lines = [
        "Every method alone, added to the baseline, and its difference from it, where there is "
        "one. The weights are random.",
        f"Cells are those of {'placement' if seeds else 'synthesis'}"
        + (f", Fmax is the median (least to greatest) of {seeds} placements." if seeds else "."),
        f"Cycles are those of the simulated Verilog, compared tensor by tensor with the golden on "
        f"{images} random image{'s' * (images > 1)}; images/s is the clock of "
        f"{content['clock_mhz']:g} MHz over them.",
        "Reads and writes are accesses to the large memory for an image.",
    ]
    if source := next((e["energy"]["images"] for e in content["methods"] if e["energy"]), None):
        lines.append(
            f"Energy is an estimate for one inference, not measured on a board: activity of the "
            f"netlist on {source}, its link included, with published coefficients (docs/energy.md)."
        )
    if content["protocol"]:
        lines.append(f"Top-1 is of the integer network: {content['protocol']}.")
    return lines


def provenance(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns how it was measured, as (what, text)."""
    seeds = content["seeds"]
    days = sorted({entry["measured"] for entry in content["methods"]})
    versions = (f"{name} {version}" for name, version in content["tools"].items())
    return [
        ("board", f"{content['board']}, {content['device']}, at {content['clock_mhz']:g} MHz"),
        ("network", f"the shape of {content['network']}, random weights of seed 0"),
        ("proof", f"random images of seed {RANDOM_SEED}: {content['images']}"),
        ("placement", f"seeds 1 to {seeds}" if seeds else "none, synthesis alone"),
        ("measured", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "nothing yet"),
        ("tools", ", ".join(versions)),
        ("command", content["command"]),
    ]
