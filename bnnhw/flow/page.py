"""report.html: a build's report to look at, one file that needs no network; two builds compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bnnhw.flow.modules import shares
from bnnhw.flow.report import accuracy_words
from bnnhw.flow.templating import template

Content = Mapping[str, Any]
TIGHT = 0.9  # of a resource: from here on it is marked as nearly full


def page(content: Content, load: str) -> str:
    """Returns the HTML of a report. load : the command that puts the build on its board."""
    modules = content.get("modules") or {}
    return template("bnnhw.flow", "report.html").render(
        content=content,
        resources=[*resources(content)],
        timeline=timeline(content),
        bounds=bounds(content),
        modules={part: shares(modules, part) for part in ("lut", "ff") if modules},
        accuracy=accuracy_words(content["accuracy"]),
        formats=content.get("formats") or [],
        load=load,
        tight=TIGHT,
    )


def resources(content: Content) -> Iterator[tuple[str, int, int, float]]:
    """Yields name, used, total and share of each resource."""
    for name, entry in (content["resources"] or {}).items():
        yield name.upper(), entry["used"], entry["total"], entry["used"] / entry["total"]


def timeline(content: Content) -> list[dict[str, Any]]:
    """Returns the steps in order: name, cycles, bound_by, and begin and share of the whole."""
    layers = (content["performance"] or {}).get("layers") or []
    known = [layer for layer in layers if layer["cycles"]]
    total, begin = sum(layer["cycles"] for layer in known) or 1, 0
    result = []
    for layer in known:
        share = layer["cycles"] / total
        result.append(dict(layer, begin=begin / total, share=share))
        begin += layer["cycles"]
    return result


def bounds(content: Content) -> list[tuple[str, int, float]]:
    """Returns what bounds steps, the cycles of these, and their share, the largest first."""
    found: dict[str, int] = {}
    steps = timeline(content)
    for step in steps:
        found[step["bound_by"]] = found.get(step["bound_by"], 0) + step["cycles"]
    total = sum(found.values()) or 1
    return sorted(((n, c, c / total) for n, c in found.items()), key=lambda row: -row[1])


def differences(before: Content, after: Content) -> list[tuple[str, str, str, str]]:
    """Returns (what, before, after, difference) of two reports; "" where there is none to tell."""
    figures, others = figures_of(before), figures_of(after)
    rows = []
    for name in [*figures, *(name for name in others if name not in figures)]:
        old, new = figures.get(name), others.get(name)
        rows.append((name, told(old), told(new), change(old, new)))
    return rows


def figures_of(content: Content) -> dict[str, Any]:
    """Returns what reports are compared by, in order."""
    found: dict[str, Any] = dict(
        board=content["board"], model=content["model"]["name"],
        **{"model's SHA-256": content["model"]["sha256"][:12]},
    )  # fmt: skip
    for name, used, *_ in resources(content):
        found[name] = used
    found["Fmax, MHz"] = content["timing"]["fmax_mhz"]
    found["clock, MHz"] = content["timing"]["clock_mhz"]
    speed = content["performance"] or {}
    found["cycles of an image"] = speed.get("busy_cycles")
    found["cycles, last byte to class"] = speed.get("cycles_per_inference")
    found["images/s"] = speed.get("fps")
    proof = content["verification"]
    found["bit-exact"] = proof and ("yes" if proof["bit_exact"] else "NO")
    found["top-1 as integers, %"] = content["accuracy"]["integer"]
    found |= {
        f"LUTs of {name}": part["lut"] for name, part in (content.get("modules") or {}).items()
    }
    for step in timeline(content):
        found[f"cycles of {step['name']}"] = step["cycles"]
    return found


def told(value: Any) -> str:
    """Returns a value as it is printed."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def change(old: Any, new: Any) -> str:
    """Returns the difference of two values."""
    if old is None or new is None or old == new:
        return ""
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return "differs"
    share = f" ({100 * (new - old) / old:+.1f} %)" if old else ""
    return f"{round(new - old, 4):+,}{share}"
