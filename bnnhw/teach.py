"""python -m bnnhw.teach: train a float ResNet, for binary ones to learn from."""

from __future__ import annotations

from pathlib import Path

import click

from bnnhw import datasets
from bnnhw.cli import Command, interruptible, numbers
from bnnhw.network.spec import NetworkSpec
from bnnhw.training.journal import Terminal
from bnnhw.training.recipe import Recipe
from bnnhw.training.run import train_teacher
from bnnhw.training.team import team


@click.command(cls=Command)
@click.option(
    "--dataset", type=click.Choice(datasets.DATASETS), default="cifar10", show_default=True
)
@click.option("--data", "directory", help="Directory of the data set (digits need none).")
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
@click.option("--resume", is_flag=True, help="Go on from OUT.state.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(
    dataset: str, directory: str | None, depth: int, widths: str, epochs: int | None,
    minutes: float | None, batch: int, lr: float, weight_decay: float, seed: int, processes: int,
    resume: bool, out: Path,
) -> None:  # fmt: skip
    """Train a float ResNet and write it as OUT, for --teacher of python -m bnnhw.train."""
    shape, classes = datasets.SHAPES[dataset]
    spec = NetworkSpec(depth, numbers("--widths", widths, ","), shape, classes)
    large = dataset != "digits"
    if epochs is None and minutes is None:
        epochs = 100
    recipe = Recipe(
        dataset, epochs, minutes, batch, lr, crop=4 if large else 1, flip=large, seed=seed,
        weight_decay=weight_decay,
    )  # fmt: skip
    work = (spec, recipe, directory, out, resume)
    with interruptible(), team(processes, train_teacher, *work) as place:
        terminal = Terminal(silent=place.rank > 0)
        with terminal.bar:
            train_teacher(*work, log=terminal, team=place)


if __name__ == "__main__":
    main()
