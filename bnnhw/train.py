"""python -m bnnhw.train: train a binary ResNet, or write an untrained one with --epochs 0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from bnnhw.cli import DATA, Command, interruptible
from bnnhw.errors import UserError
from bnnhw.nn import checkpoint, untrained
from bnnhw.training.journal import Terminal, prepare, state_path
from bnnhw.training.options import (
    given_tables,
    options,
    read_config,
    repairs_table,
    settle,
)
from bnnhw.training.run import benchmark, train
from bnnhw.training.team import one_training, team
from bnnhw.training.trainer import Recipe


def _print_speed(processes: int, *work: Any) -> None:
    """Print the benchmark of a team as JSON."""
    with interruptible(), compilable(), team(processes, benchmark, *work) as place:
        result = benchmark(*work, team=place)
    if place.rank == 0:
        print(json.dumps(result))


@contextmanager
def compilable() -> Iterator[None]:
    """Turn a machine's failure to compile into one line."""
    try:
        yield
    except torch._dynamo.exc.BackendCompilerFailed as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--compile: torch cannot compile here ({reason}); leave it out") from None


@click.command(cls=Command)
@options
@click.option("--repair", "repairs", multiple=True, metavar="METHOD=VALUE",
              help="A repair method; --list-repairs explains them.")  # fmt: skip
@click.option("--list-repairs", is_flag=True, help="Print every repair method and end.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path),
              help="Recipe file (TOML): tables spec, repair, formats, recipe.")  # fmt: skip
@click.option("--data", "directory", help=DATA)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--start", help="Model.pt or bundled model to begin with instead of random weights.")
@click.option("--teacher", help="What to learn from: a file of python -m bnnhw.teach.")
@click.option("--processes", default=1, type=click.IntRange(1), show_default=True,
              help="Share batches among so many.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Compile the network (torch.compile).")
@click.option("--log", "board", type=click.Path(file_okay=False, path_type=Path),
              help="Directory for TensorBoard.")  # fmt: skip
@click.option("--benchmark", "measured", metavar="SECONDS", type=click.FloatRange(0, min_open=True),
              help="Print the images per second of this training as JSON, and end.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from OUT.state, with more --epochs, too.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there already.")
def main(
    repairs: tuple[str, ...], list_repairs: bool, config: Path | None, directory: str | None,
    out: Path | None, start: str | None, teacher: str | None, processes: int, compiled: bool,
    board: Path | None, measured: float | None, resume: bool, overwrite: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Train a binary ResNet and write it as OUT (model.pt)."""
    if list_repairs:
        Console().print(repairs_table())
        return
    if out is not None:
        prepare(out, resume=resume, overwrite=overwrite)
    settings = {} if config is None else read_config(config)
    spec, fields = settle(settings, given_tables(given, repairs), directory)
    if measured is not None:
        recipe = Recipe(**{**fields, "epochs": 1, "exact_epochs": 0})
        _print_speed(processes, spec, recipe, measured, compiled)
        return
    if out is None:
        raise UserError("nowhere to write the network: give --out FILE.pt")
    if fields.get("epochs") == 0:
        seed = fields.get("seed", Recipe.seed)
        with one_training(out):
            checkpoint.save(out, untrained(spec, seed), dict(epochs=0, seed=seed))
            state_path(out).unlink(missing_ok=True)
        return
    work = (spec, Recipe(**fields), directory, out, resume, start, teacher, board, compiled)
    with (
        interruptible(),
        one_training(out),
        compilable(),
        team(processes, train, *work) as place,
    ):
        terminal = Terminal(silent=place.rank > 0)
        with terminal.bar:
            train(*work, log=terminal, team=place)


if __name__ == "__main__":
    main()
