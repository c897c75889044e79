"""python -m bnnhw.flash: a build's gateware and weights onto its board."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.console import Console

from bnnhw.boards import board
from bnnhw.cli import Command
from bnnhw.flow.desk import find_build
from bnnhw.flow.flash import PROGRAMMERS, command, execute, find_programmer, plan_writes


@click.command(cls=Command)
@click.option("--build", "folder", type=click.Path(path_type=Path),
              help="Folder of the build; default: the newest in ./build.")  # fmt: skip
@click.option(
    "--programmer", type=click.Choice(sorted(PROGRAMMERS)), help="Default: what is there."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the commands, run none.")
def main(folder: Path | None, programmer: str | None, dry_run: bool) -> None:
    """Write a build's weights and gateware to the flash of its board, and read them back."""
    console = Console(soft_wrap=True)
    built = find_build(folder)
    chosen = board(built.report["board"])
    writes = plan_writes(built)
    if dry_run:
        name = programmer or "openFPGALoader"
        program = PROGRAMMERS[name][0]
    else:
        name, program = find_programmer(programmer, chosen.family)
    for write in writes:
        words = command(name, program, chosen.loader, write)
        console.print(shlex.join(words), highlight=False)
        if not dry_run:
            execute(words)
    if not dry_run:
        console.print("written and read back; bnnhw run --test asks the board", highlight=False)


if __name__ == "__main__":
    main()
