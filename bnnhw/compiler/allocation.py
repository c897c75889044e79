"""Memory that maps share: one that is not needed yet may lie where another is no longer needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

Tasks = Sequence[Any]  # of bnnhw.compiler.schedule.Task


def separate(tasks: Tasks) -> Iterator[Any]:
    """The tasks, with a place for each size of map where they had one for all sizes."""
    named: dict[str, str] = {}
    for task in tasks:
        read = {name: named.get(place, place) for name, place in _read(task).items()}
        size = "x".join(map(str, task.size))
        written = {name: f"{place}, {size}" for name, place in _written(task).items()}
        named |= {getattr(task, name): place for name, place in written.items()}
        yield replace(task, **read, **written)


def needed(tasks: Tasks) -> dict[str, range]:
    """For each place that is written, the tasks from the first to the last that use it."""
    result: dict[str, range] = {}
    for index, task in enumerate(tasks):
        for place in _written(task).values():
            first = result.get(place, range(index, index)).start
            result[place] = range(first, index + 1)
        for place in _read(task).values():
            if place in result:
                result[place] = range(result[place].start, index + 1)
    return result


def share(
    sizes: Mapping[str, int], times: Mapping[str, range], first: int
) -> dict[str, tuple[int, int]]:
    """First word and size of each place, from `first` on: the largest as low as what is needed
    at the same time leaves room for it, then the next."""
    laid: dict[str, tuple[int, int]] = {}
    for name in sorted(times, key=lambda name: (-sizes[name], times[name].start)):
        beside = sorted(laid[other] for other in laid if _meet(times[name], times[other]))
        at = first
        for start, size in beside:
            if at + sizes[name] <= start:
                break
            at = max(at, start + size)
        laid[name] = (at, sizes[name])
    return laid


def _meet(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _read(task: Any) -> dict[str, str]:
    return {name: getattr(task, name) for name in ("features", "operand", "adds")}


def _written(task: Any) -> dict[str, str]:
    places = {name: getattr(task, name) for name in ("bits", "residual")}
    return {name: place for name, place in places.items() if place}
