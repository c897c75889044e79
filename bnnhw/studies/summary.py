"""What the runs of a study say together: mean and range over seeds, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bnnhw.network.methods import BASE

KINDS = ("integer", "float")


def spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Returns mean, least and greatest of the known values, or None if none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = round(sum(known) / len(known), 2)
    return dict(mean=mean, min=min(known), max=max(known), runs=len(known))


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the spread of both accuracies over seeds, by method in order of its first run."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        grouped.setdefault(run["method"], []).append(run)
    return [
        dict(method=method, settings=group[0]["settings"])
        | {kind: spread(run[kind] for run in group) for kind in KINDS}
        | dict(integer_refused=next(filter(None, (r["integer_refused"] for r in group)), None))
        for method, group in grouped.items()
    ]


def means(methods: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean integer accuracy of every method that has one. Methods are chosen by it."""
    return {row["method"]: row["integer"]["mean"] for row in methods if row["integer"]}


def markdown(study: Mapping[str, Any]) -> str:
    """Returns the table of a study, and under it what the figures are."""
    rows = [
        "| method | top-1, integer | against the baseline | top-1, float | seeds |",
        "|---|---|---|---|---|",
    ]
    base = means(study["methods"]).get(BASE.name)
    notes = []
    for row in study["methods"]:
        name, integer, real = row["method"], row["integer"], row["float"]
        gain = f"{integer['mean'] - base:+.2f}" if integer and base is not None else "-"
        if name == BASE.name:
            gain = ""
        rows.append(f"| {name} | {_cell(integer)} | {gain} | {_cell(real)} | {real['runs']} |")
        if row["integer_refused"]:
            notes.append(f"- {name}: no integer network: {row['integer_refused']}")
    notes += [f"- {entry['method']}: {entry['reason']}" for entry in study["not_run"]]
    notes += _choice(study)
    head = [f"# {study['plan'].capitalize()} study, {study['dataset']}", "", _protocol(study), ""]
    return "\n".join([*head, *rows, *([""] if notes else []), *notes]) + "\n"


def _cell(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return "-"
    if values["runs"] == 1:
        return f"{values['mean']:.2f}"
    return f"{values['mean']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def _protocol(study: Mapping[str, Any]) -> str:
    widths = "/".join(map(str, study["widths"]))
    return (
        f"ResNet-{study['depth']} ({widths}), epochs: {study['epochs']}, batch: {study['batch']}, "
        f"training images: the first {study['train_images']}. Accuracy in percent of the "
        f"{study['validation_images']} validation images, which no network was trained on: mean "
        f"(least to greatest) over the seeds. Integer: in the device's own arithmetic. The test "
        f"split was not used."
    )


def _choice(study: Mapping[str, Any]) -> list[str]:
    choice = study.get("choice")
    if choice is None:
        return []
    taken = ", ".join(choice["taken"]) or "no method beats the baseline"
    lines = [f"- combined: {taken}; by mean integer accuracy in {choice['source']}"]
    return lines + [f"- {name} is not in it: {why}" for name, why in choice["dropped"].items()]
