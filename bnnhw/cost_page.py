"""The costs of methods as one page that needs no network: charts and a table that sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bnnhw.cost_table import (
    FIGURES,
    Entry,
    cell,
    columns,
    difference,
    explanation,
    larger,
    measured,
    number,
    remarks,
)

WIDTH = 360  # of a chart, which is never scaled: one fits a telephone
LABELS, ROW = 192, 18
ROOM = 56  # for a bar's number, on either side of the bars
PLOT = dict(left=44, right=348, top=12, bottom=216)
BARS = tuple(name for name in FIGURES if name not in ("fps", "accuracy"))
PLOTS = ("lc", "lut", "busy_cycles")


def page(content: Mapping[str, Any]) -> str:
    """The whole HTML file."""
    table = content["methods"]
    shown = columns(table)
    plots = [chart for name in PLOTS if (chart := pareto(table, name))]
    environment = Environment(
        loader=PackageLoader("bnnhw"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("repair-cost.html").render(
        content=content,
        sentences=explanation(content),
        bars=[chart for name in BARS if (chart := bars(table, name))],
        plots=plots,
        titles=[FIGURES[name] for name in shown],
        rows=[(entry, [(entry[name], cell(entry, name)) for name in shown]) for entry in table],
        larger=larger(table),
        remarks=remarks(table, content["clock_mhz"]),
    )


def bars(table: Sequence[Entry], name: str) -> dict[str, Any] | None:
    """A bar for each method that changes a figure; None if no method has it."""
    known = [entry for entry in measured(table) if name in entry["delta"]]
    if not known:
        return None
    changed = [entry for entry in known if entry["delta"][name]]
    low = min([0, *(entry["delta"][name] for entry in changed)])
    high = max([0, *(entry["delta"][name] for entry in changed)])
    left = LABELS + (ROOM if low else 0)
    scale = (WIDTH - left - (ROOM if high else 0)) / ((high - low) or 1)
    zero = left - low * scale
    marks = []
    for at, entry in enumerate(changed):
        delta = entry["delta"][name]
        marks.append(
            dict(method=entry["method"], text=difference(delta), y=at * ROW,
                 x=round(min(zero, zero + delta * scale), 1), width=round(abs(delta) * scale, 1),
                 more=delta > 0)
        )  # fmt: skip
    return dict(
        title=FIGURES[name], marks=marks, zero=round(zero, 1), height=ROW * len(marks),
        unchanged=len(known) - len(changed),
    )  # fmt: skip


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Which points (cost, gain) no other betters in one without being worse in the other."""
    return {
        at
        for at, (cost, gain) in enumerate(points)
        if not any(
            other != (cost, gain) and other[0] <= cost and other[1] >= gain for other in points
        )
    }


def pareto(table: Sequence[Entry], name: str) -> dict[str, Any] | None:
    """Accuracy against a cost, a point for each method that has both; None for fewer than two."""
    known = [e for e in measured(table) if e[name] is not None and e["accuracy"] is not None]
    if len(known) < 2:
        return None
    points = [(entry[name], entry["accuracy"]) for entry in known]
    across, up = _axis([x for x, _ in points]), _axis([y for _, y in points])
    best = front(points)
    marks = [
        dict(x=_place(x, across, PLOT["left"], PLOT["right"]),
             y=_place(y, up, PLOT["bottom"], PLOT["top"]),
             best=at in best, text=f"{entry['method']}: {number(x)}, {number(y)} %")
        for at, (entry, (x, y)) in enumerate(zip(known, points, strict=True))
    ]  # fmt: skip
    line = sorted((mark for mark in marks if mark["best"]), key=lambda mark: mark["x"])
    return dict(
        title=FIGURES[name], marks=marks, line=" ".join(f"{m['x']},{m['y']}" for m in line),
        best=[mark["text"] for mark in line], across=[number(x) for x in across],
        up=[f"{y:.1f}" for y in up], **PLOT,
    )  # fmt: skip


def _axis(values: Sequence[float]) -> tuple[float, float]:
    """Both ends of an axis; a single value lies in its middle."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 1, high + 1)


def _place(value: float, axis: tuple[float, float], first: float, last: float) -> float:
    return round(first + (value - axis[0]) / (axis[1] - axis[0]) * (last - first), 1)
