"""python -m bnnhw.evaluate: accuracy of a model, float or integer, on a data set's test split."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from bnnhw import datasets
from bnnhw.cli import DATA, Command
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import stage_fractions
from bnnhw.nn import checkpoint
from bnnhw.studies.accuracy import integer_report, record, top1


@click.command(cls=Command)
@click.argument("model")
@click.option("--data", "directory", help=DATA)
@click.option("--resize", is_flag=True, help="Resize the images to what the model takes.")
@click.option(
    "--dataset", type=click.Choice(["auto", *datasets.DATASETS]), default="auto", show_default=True
)
@click.option("--split", type=click.Choice(datasets.SPLITS), default="test", show_default=True)
@click.option("--integer", is_flag=True, help="Run the integer network, as the device does.")
@click.option("--residual-width", type=int, help="With --integer: bits of the stream.")
@click.option("--fraction", "points", help="With --integer: bits after its point, stage0=3,...")
@click.option("--images", "count", type=click.IntRange(1), help="Only the first so many images.")
@click.option("--record", "recorded", is_flag=True, help="Measure both and keep them in MODEL.")
def main(
    model: str, directory: str | None, resize: bool, dataset: str, split: str, integer: bool,
    residual_width: int | None, points: str | None, count: int | None, recorded: bool,
) -> None:  # fmt: skip
    """Print the accuracy of MODEL (a model.pt or a bundled model's name) as one JSON object.

    With --integer it holds the number formats and each layer's range of the residual stream, too.
    """
    torch.set_num_threads(1)  # a second thread makes these small kernels slower
    path = checkpoint.find(model)
    loaded = checkpoint.load(path)
    spec = loaded.spec
    fractions = stage_fractions(points, spec) if points else ()
    if (residual_width or fractions) and not integer:
        raise UserError("--residual-width, --fraction: formats are of integers; give --integer")
    named = None if dataset == "auto" else dataset
    source = datasets.suiting(spec.input, spec.classes, directory, named)
    chosen = source.name
    images = source.fitting(
        split, spec.input, spec.classes, resize=resize, names=loaded.names
    ).first(count)
    result: dict[str, Any] = dict(
        model=Path(model).name, dataset=chosen, split=split, images=len(images)
    )
    network: IntegerNetwork | None = None
    with click.progressbar(length=len(images), label=f"{chosen} {split}", file=sys.stderr) as bar:

        def step(done: int) -> None:
            bar.update(done - bar.pos)

        if recorded:
            accuracy = record(path, images, chosen, split, step)
            result |= dict(top1=accuracy["integer"], integer=True, float_top1=accuracy["float"])
        else:
            float_model = loaded.network or loaded.model()
            if integer:
                network = lower(
                    float_model, residual_width=residual_width, residual_fractions=fractions
                )
            percent = top1(float_model, images, integer=network or False, step=step)
            result |= dict(top1=round(percent, 2), integer=integer)
    if network is not None:
        asked = spec.formats.wider(residual_width) if residual_width else spec.formats
        asked = replace(asked, residual_fractions=fractions or asked.residual_fractions)
        entry, said = integer_report(asked, network, images.pixels)
        result |= entry
        for line in said:
            print(line, file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
