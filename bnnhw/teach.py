"""python -m bnnhw.teach: train a float ResNet, for binary ones to learn from."""

from __future__ import annotations

from pathlib import Path

import click

from bnnhw import datasets
from bnnhw.cli import DATA, Command, interruptible, numbers
from bnnhw.training.journal import Terminal, prepare
from bnnhw.training.options import TABLES, Tables, settle
from bnnhw.training.recipe import Recipe
from bnnhw.training.run import train_teacher
from bnnhw.training.team import one_training, team


@click.command(cls=Command)
@click.option(
    "--dataset", type=click.Choice(datasets.DATASETS), help="[default: what is at --data]"
)
@click.option("--data", "directory", help=DATA)
@click.option("--input", "shape", help="HEIGHTxWIDTHxCHANNELS; the data set's if not given.")
@click.option("--resize", is_flag=True, help="Resize the images to --input.")
@click.option("--depth", default=20, show_default=True, help="2 x stages x n + 2 layers.")
@click.option("--widths", default="16,32,64", show_default=True, help="Channels per stage.")
@click.option("--epochs", type=int, help="Epochs; 100 if neither they nor minutes are given.")
@click.option("--budget-minutes", "minutes", type=float, help="Schedule ends with this time.")
@click.option("--batch", default=128, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--weight-decay", default=5e-4, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--processes", default=1, type=click.IntRange(1), show_default=True,
              help="Share batches among so many.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from OUT.state, with more --epochs, too.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there already.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(
    dataset: str | None, directory: str | None, shape: str | None, resize: bool, depth: int,
    widths: str, epochs: int | None, minutes: float | None, batch: int, lr: float,
    weight_decay: float, seed: int, processes: int, resume: bool, overwrite: bool, out: Path,
) -> None:  # fmt: skip
    """Train a float ResNet and write it as OUT, for --teacher of python -m bnnhw.train."""
    prepare(out, resume=resume, overwrite=overwrite)
    given: Tables = {name: {} for name in TABLES}
    given["spec"] = dict(depth=depth, widths=numbers("--widths", widths, ","))
    if shape:
        given["spec"]["input"] = numbers("--input", shape, "x")
    given["recipe"] = dict(dataset=dataset, resize=resize) if dataset else dict(resize=resize)
    spec, fields = settle({}, given, directory)
    large = fields["dataset"] != "digits"
    if epochs is None and minutes is None:
        epochs = 100
    recipe = Recipe(
        epochs=epochs, minutes=minutes, batch=batch, lr=lr, crop=4 if large else 1, seed=seed,
        weight_decay=weight_decay, **fields,
    )  # fmt: skip
    work = (spec, recipe, directory, out, resume)
    with interruptible(), one_training(out), team(processes, train_teacher, *work) as place:
        terminal = Terminal(silent=place.rank > 0)
        with terminal.bar:
            train_teacher(*work, log=terminal, team=place)


if __name__ == "__main__":
    main()
