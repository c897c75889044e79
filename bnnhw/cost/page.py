"""The costs of methods as one page that needs no network: charts and a table that sorts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnnhw.cost.charts import bars, plots
from bnnhw.cost.tables import (
    FIGURES,
    columns,
    explanation,
    larger,
    measured,
    parts,
    provenance,
    remarks,
)
from bnnhw.flow.templating import template


def page(content: Mapping[str, Any]) -> str:
    """Returns the whole HTML file."""
    table = content["methods"]
    shown = columns(table)
    charts = [chart for name in FIGURES if (chart := bars(table, name))]
    return template("bnnhw.cost", "repair-cost.html").render(
        content=content,
        sentences=explanation(content),
        bars=[chart for chart in charts if chart["marks"]],
        equal=[chart["title"] for chart in charts if not chart["marks"]],
        plots=plots(table),
        untrained=[e["method"] for e in measured(table) if e["accuracy"] is None],
        titles=[FIGURES[name] for name in shown],
        rows=[(entry, [(entry[name], *parts(entry, name)) for name in shown]) for entry in table],
        larger=larger(table),
        remarks=remarks(table, content["clock_mhz"]),
        provenance=provenance(content),
    )
