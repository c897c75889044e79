"""python -m bnnhw.compare: where a network departs from what its author computed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bnnhw.cli import MISMATCH, Command
from bnnhw.nn import checkpoint
from bnnhw.studies.compare import STEPS, Link, compare, read_reference


def table(links: tuple[Link, ...]) -> Table:
    """The differences of all tensors, in percent; a star marks what departs."""
    shown = Table("tensor", *(f"{link.before} to {link.after}" for link in links))
    shown.caption = "percent of its own / in total; * departs"
    for each in links[1].departures:  # it has them all
        cells = []
        for link in links:
            found = next((other for other in link.departures if other.tensor == each.tensor), None)
            mark = " *" if found and link.departs(found) else ""
            cells.append(f"{100 * found.own:.2g} / {100 * found.total:.2g}{mark}" if found else "")
        shown.add_row(each.tensor, *cells)
    return shown


@click.command(cls=Command)
@click.argument("model")
@click.option("--reference", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help=".npz with x, logits, and stem, stage0.0.conv1 and so on.")  # fmt: skip
@click.option("--limits", type=(float, float, float), default=(1.0, 10.0, 3.0), show_default=True,
              help="Percent from which on a part departs: float, rounded, integer.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def main(
    ctx: click.Context, model: str, reference: Path, limits: tuple[float, float, float],
    as_json: bool,
) -> None:  # fmt: skip
    """Compare MODEL with its author's own numbers: in float, then rounded, then as integers.

    Ends with 1 if the float numbers, the rounded or the integer ones depart.
    """
    loaded = checkpoint.load(checkpoint.find(model))
    given = read_reference(reference, loaded.spec)
    parts = {step: limit / 100 for step, limit in zip(STEPS, limits, strict=True)}
    links = compare(loaded.folded(), given, parts)
    if as_json:
        print(json.dumps([asdict(link) for link in links]))
    else:
        console = Console(soft_wrap=True)
        console.print(table(links))
        for link in links:
            console.print(str(link), highlight=False)
    if any(link.first for link in links):
        ctx.exit(MISMATCH)


if __name__ == "__main__":
    main()
