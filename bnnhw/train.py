"""python -m bnnhw.train: train a binary ResNet, or write an untrained one with --epochs 0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from bnnhw import datasets
from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint, untrained
from bnnhw.nn.teacher import Teacher
from bnnhw.nn.teachers import read_teacher
from bnnhw.training.journal import Board, Lines, Terminal, interruptible, lines_path
from bnnhw.training.options import (
    command_line,
    given_tables,
    options,
    read_config,
    repairs_table,
    settle,
)
from bnnhw.training.streams import integers
from bnnhw.training.team import ALONE, Team, team
from bnnhw.training.trainer import Log, Recipe, Trainer, random_images


def train(
    spec: NetworkSpec, recipe: Recipe, directory: str | None, out: Path,
    resume: bool = False, start: str | None = None, teacher: str | None = None,
    board: Path | None = None, compiled: bool = False, *,
    log: Log = lambda entry: None, team: Team = ALONE,
) -> Trainer:  # fmt: skip
    """Train and leave model.pt at `out` after every epoch, its training state in `out`.state.

    resume : go on from that state. start : a model.pt of the same parameters to begin with.
    teacher : a file of python -m bnnhw.teach, for spec.repair.teacher_student.
    board : directory of TensorBoard's files. The metrics of each epoch go to `out`.log.jsonl, too.
    team : of which this process is one; each must make the same call.
    """
    logs = [log] if team.rank == 0 else []
    if board is not None and team.rank == 0:
        logs.append(Board(board))
    parts = [datasets.load(recipe.dataset, directory, split) for split in ("train", "validation")]
    for option, mine, theirs in (
        ("--input", spec.input, parts[0].pixels.shape[1:]),
        ("--classes", spec.classes, parts[0].classes),
    ):
        if mine != theirs:
            raise UserError(f"{option}: the network takes {mine}, {recipe.dataset} has {theirs}")
    if recipe.all_images:
        parts[0] += parts[1]
    taught_by = None if teacher is None else read_teacher(teacher, spec)
    trainer = Trainer(spec, recipe, *parts, team, taught_by, integers, compiled=compiled)
    kept = out.with_name(out.name + ".state")
    before: dict[str, Any] = {}
    if start is not None:
        before = dict(started_from=_begin(trainer, checkpoint.find(start)))
    if resume:
        trainer.restore(checkpoint.read_inert(kept, "training state"), kept)

    def keep(top1: float) -> None:
        metrics = dict(
            epochs=trainer.epoch, seconds=round(trainer.seconds), seed=recipe.seed,
            recipe=asdict(trainer.recipe), command=command_line(spec, trainer.recipe), **before,
        )  # fmt: skip
        if not recipe.all_images:
            metrics["validation"] = round(top1, 2)
        checkpoint.save(out, trainer.model, metrics)
        checkpoint.write_atomic(trainer.state(), kept)

    if team.rank == 0:
        logs.append(Lines(lines_path(out), trainer.epoch))
    trainer.run(lambda entry: [tell(entry) for tell in logs], keep)
    return trainer


def _begin(trainer: Trainer, start: Path) -> dict[str, Any]:
    """Take over the parameters of `start`; returns what its file says of their training.

    Formats and repair methods may differ as far as the parameters are the same; activations that
    `start` has none of begin as the identity.
    """
    loaded, spec = checkpoint.load(start), trainer.model.spec
    if loaded.spec.repair.activation == "none":
        for layer in trainer.model.layers():
            if layer.activation is not None:
                layer.activation.begin_as_identity()
    mine = trainer.model.state_dict()
    added = {name for name in mine.keys() - loaded.state.keys() if ".activation." in name}
    state = {**{name: mine[name] for name in added}, **loaded.state}
    alike = replace(loaded.spec, formats=spec.formats, repair=spec.repair) == spec
    shapes, theirs = ({name: part.shape for name, part in s.items()} for s in (mine, state))
    if not alike or shapes != theirs:
        raise UserError(f"{start}: its network is {loaded.spec}, asked for is {spec}")
    trainer.model.load_state_dict(state)
    return loaded.metrics


def benchmark(
    spec: NetworkSpec, recipe: Recipe, seconds: float, compiled: bool = False, *,
    team: Team = ALONE,
) -> dict[str, Any]:  # fmt: skip
    """Train on random pixels for a while, and say how fast; no data set is needed."""
    images = random_images(spec, 8 * recipe.batch)
    teacher = None
    if spec.repair.teacher_student != "none":
        teacher = Teacher(spec.blocks, spec.widths, spec.classes, spec.input[2])
    trainer = Trainer(spec, recipe, images, images, team, teacher, compiled=compiled)
    speed = trainer.measure(seconds)
    return dict(
        images_per_second=round(speed, 1), batch=recipe.batch, processes=team.size,
        device=str(trainer.device), compiled=compiled, torch=torch.__version__,
    )  # fmt: skip


def _print_speed(processes: int, *work: Any) -> None:
    """The benchmark of a team, as JSON."""
    with interruptible(), compilable(), team(processes, benchmark, *work) as place:
        result = benchmark(*work, team=place)
    if place.rank == 0:
        print(json.dumps(result))


@contextmanager
def compilable() -> Iterator[None]:
    """That a machine cannot compile is one line."""
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
@click.option("--data", "directory", help="Directory of the data set (digits need none).")
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
@click.option("--resume", is_flag=True, help="Go on from OUT.state.")
def main(
    repairs: tuple[str, ...], list_repairs: bool, config: Path | None, directory: str | None,
    out: Path | None, start: str | None, teacher: str | None, processes: int, compiled: bool,
    board: Path | None, measured: float | None, resume: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a binary ResNet and write it as OUT (model.pt)."""
    if list_repairs:
        Console().print(repairs_table())
        return
    settings = {} if config is None else read_config(config)
    spec, fields = settle(settings, given_tables(given, repairs))
    if measured is not None:
        recipe = Recipe(**{**fields, "epochs": 1, "exact_epochs": 0})
        _print_speed(processes, spec, recipe, measured, compiled)
        return
    if out is None:
        raise UserError("nowhere to write the network: give --out FILE.pt")
    if fields.get("epochs") == 0:
        seed = fields.get("seed", Recipe.seed)
        checkpoint.save(out, untrained(spec, seed), dict(epochs=0, seed=seed))
        return
    work = (spec, Recipe(**fields), directory, out, resume, start, teacher, board, compiled)
    with interruptible(), compilable(), team(processes, train, *work) as place:
        terminal = Terminal(silent=place.rank > 0)
        with terminal.bar:
            train(*work, log=terminal, team=place)


if __name__ == "__main__":
    main()
