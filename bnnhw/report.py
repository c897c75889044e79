"""python -m bnnhw.report: two builds compared, or one build's page made anew."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bnnhw.boards import board
from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.flow.page import differences, page
from bnnhw.jobs.files import write_text

REPORT, PAGE = "report.json", "report.html"


def read_report(folder: Path) -> dict[str, Any]:
    """Returns the report of a build's folder. Raises UserError where there is none."""
    path = folder / REPORT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = {"board", "model", "resources", "timing", "performance"} - {*content}
    except OSError as fault:
        raise UserError(f"{path}: {fault.strerror}; give the folder of a build") from None
    except (ValueError, TypeError):
        raise UserError(f"{path}: is no report; build it anew: bnnhw build") from None
    if missing:
        raise UserError(f"{path}: has no {sorted(missing)[0]}; build it anew: bnnhw build")
    return dict(content)


@click.command(cls=Command)
@click.argument("build", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("--all", "everything", is_flag=True, help="Also what is the same in both.")
def main(build: Path, other: Path | None, everything: bool) -> None:
    """Compare BUILD's report with OTHER's, or make the page of BUILD anew."""
    content = read_report(build)
    if other is None:
        load = board(content["board"]).load.format(
            folder=shlex.quote(str(build)), offset=content["flash"]["offset"]
        )
        write_text(build / PAGE, page(content, load))
        print(build / PAGE)
        return
    table = Table()
    for column in ("", str(build), str(other), "difference"):
        table.add_column(column, justify="right" if column else "left")
    rows = differences(content, read_report(other))
    shown = [row for row in rows if everything or row[1] != row[2]]
    for row in shown:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
    if len(shown) < len(rows):
        print(f"{len(rows) - len(shown)} other figures are the same")


if __name__ == "__main__":
    main()
