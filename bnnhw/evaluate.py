"""python -m bnnhw.evaluate: accuracy of a model, float or integer, on a data set's test split."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import torch

from bnnhw import datasets
from bnnhw.cli import Command
from bnnhw.nn import checkpoint
from bnnhw.studies.accuracy import record, top1


@click.command(cls=Command)
@click.argument("model")
@click.option("--data", "directory", help="Directory of the data set (digits need none).")
@click.option(
    "--dataset", type=click.Choice(["auto", *datasets.DATASETS]), default="auto", show_default=True
)
@click.option("--split", type=click.Choice(datasets.SPLITS), default="test", show_default=True)
@click.option("--integer", is_flag=True, help="Run the integer network, as the device does.")
@click.option("--images", "count", type=click.IntRange(1), help="Only the first so many images.")
@click.option("--record", "recorded", is_flag=True, help="Measure both and keep them in MODEL.")
def main(
    model: str, directory: str | None, dataset: str, split: str, integer: bool,
    count: int | None, recorded: bool,
) -> None:  # fmt: skip
    """Print the accuracy of MODEL (a model.pt or a bundled model's name) as one JSON object."""
    torch.set_num_threads(1)  # a second thread makes these small kernels slower
    path = checkpoint.find(model)
    loaded = checkpoint.load(path)
    spec = loaded.spec
    chosen = datasets.guess(spec.input, spec.classes) if dataset == "auto" else dataset
    images = datasets.load(chosen, directory, split).first(count)
    result: dict[str, Any] = dict(
        model=Path(model).name, dataset=chosen, split=split, images=len(images)
    )
    with click.progressbar(length=len(images), label=f"{chosen} {split}", file=sys.stderr) as bar:

        def step(done: int) -> None:
            bar.update(done - bar.pos)

        if recorded:
            accuracy = record(path, images, chosen, split, step)
            result |= dict(top1=accuracy["integer"], integer=True, float_top1=accuracy["float"])
        else:
            percent = top1(loaded.model(), images, integer=integer, step=step)
            result |= dict(top1=round(percent, 2), integer=integer)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
