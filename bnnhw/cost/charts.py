"""The charts of the page of costs as places and texts: differences as bars, accuracy as points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnnhw.cost.tables import FIGURES, GREATER, Entry, difference, measured, number
from bnnhw.network.methods import BASE

PLOT = dict(width=360, height=250, left=46, right=346, top=18, bottom=206)
COSTS = (("lc", "lut"), ("busy_cycles",), ("energy_uj",))  # of each the first that is known
TICKS = 4  # steps of an axis, about
LABEL = (11.0, 10.0)  # room of a point's number


def bars(table: Sequence[Entry], name: str) -> dict[str, Any] | None:
    """Returns a bar for each method that changes a figure, or None if no method has the figure.

    Places are in percent. zero : the place of no difference. worse : whether a bar is to the
        method's disadvantage.
    """
    known = [entry for entry in measured(table) if name in entry["delta"]]
    if not known:
        return None
    changed = [entry for entry in known if entry["delta"][name]]
    deltas = [entry["delta"][name] for entry in changed]
    low, high = min([0, *deltas]), max([0, *deltas])
    scale = 100 / ((high - low) or 1)
    marks = [
        dict(method=entry["method"], text=difference(delta), worse=(delta > 0) != (name in GREATER),
             start=round((min(0, delta) - low) * scale, 2), width=round(abs(delta) * scale, 2))
        for entry, delta in zip(changed, deltas, strict=True)
    ]  # fmt: skip
    return dict(title=FIGURES[name], marks=marks, zero=round(-low * scale, 2),
                unchanged=len(known) - len(changed))  # fmt: skip


def plots(table: Sequence[Entry]) -> list[dict[str, Any]]:
    """Returns the plots of accuracy against each cost that enough methods have."""
    charts = []
    for names in COSTS:
        found = (pareto(table, name) for name in names if name in FIGURES)
        charts += [chart for chart in found if chart][:1]
    return charts


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Returns the indices of the points (cost, gain) on the Pareto front.

    No other point betters such a point in one figure without being worse in the other.
    """
    return {
        at
        for at, (cost, gain) in enumerate(points)
        if not any(
            other != (cost, gain) and other[0] <= cost and other[1] >= gain for other in points
        )
    }


def pareto(table: Sequence[Entry], name: str) -> dict[str, Any] | None:
    """Returns accuracy against a cost, with one mark for all methods that share both figures.

    Returns None for fewer than two methods. best : whether a mark is on the front. line : the front
        as a path.
    """
    costed = [entry for entry in measured(table) if entry.get(name) is not None]
    known = [entry for entry in costed if entry["accuracy"] is not None]
    if len(known) < 2:
        return None
    points = list(dict.fromkeys((entry[name], entry["accuracy"]) for entry in known))
    across, up = _ticks([x for x, _ in points]), _ticks([y for _, y in points])
    best = front(points)
    marks: list[dict[str, Any]] = []
    for at, point in enumerate(points):
        methods = [e["method"] for e in known if (e[name], e["accuracy"]) == point]
        marks.append(
            dict(x=_across(point[0], across), y=_up(point[1], up), best=at in best,
                 base=BASE.name in methods, methods=methods,
                 text=f"{', '.join(methods)}: {number(point[0])}, {number(point[1])} %")
        )  # fmt: skip
    steps = sorted((mark for mark in marks if mark["best"]), key=lambda mark: mark["x"])
    _put_labels(steps)
    return dict(
        title=FIGURES[name], marks=marks, line=_stairs(steps), best=steps,
        untrained=len(costed) - len(known),
        across=[(_across(value, across), text) for value, text in across],
        up=[(_up(value, up), text) for value, text in up], **PLOT,
    )  # fmt: skip


def _stairs(steps: Sequence[dict[str, Any]]) -> str:
    """Returns the border of what the front reaches: along to the next cost, then up to its gain."""
    first, *rest = steps
    turns = [f"M{first['x']} {first['y']}", *(f"H{mark['x']}V{mark['y']}" for mark in rest)]
    return "".join(turns)


def _put_labels(steps: Sequence[dict[str, Any]]) -> None:
    """Number the front's marks. A number goes to the left above its mark where no other mark can
    be.
    """
    placed: list[tuple[float, float]] = []
    for at, mark in enumerate(steps):
        x, y = mark["x"] - 5, mark["y"] - 5
        while any(abs(x - a) < LABEL[0] and abs(y - b) < LABEL[1] for a, b in placed):
            y -= 1
        placed.append((x, y))
        mark.update(number=at + 1, label_x=round(x, 1), label_y=round(y, 1))


def _ticks(values: Sequence[float]) -> list[tuple[float, str]]:
    """Returns round values from below the least to above the greatest, with their texts."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    decimals = max(0, -math.floor(math.log10(step)))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [(at * step, f"{at * step:,.{decimals}f}") for at in range(first, last + 1)]


def _across(value: float, ticks: Sequence[tuple[float, str]]) -> float:
    return _place(value, ticks, PLOT["left"], PLOT["right"])


def _up(value: float, ticks: Sequence[tuple[float, str]]) -> float:
    return _place(value, ticks, PLOT["bottom"], PLOT["top"])


def _place(value: float, ticks: Sequence[tuple[float, str]], start: float, end: float) -> float:
    low, high = ticks[0][0], ticks[-1][0]
    return round(start + (value - low) / (high - low) * (end - start), 1)
