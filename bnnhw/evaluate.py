"""python -m bnnhw.evaluate: accuracy of a model, float or integer, on a data set's test split."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from bnnhw import datasets, golden
from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.nn import BinaryResNet, checkpoint
from bnnhw.training.trainer import classify

Step = Callable[[int], None]


def integer_classes(network: IntegerNetwork, pixels: np.ndarray, step: Step) -> np.ndarray:
    """Classes int64 (N,) that the integer network gives uint8 pixels (N, H, W, C), exactly."""
    return golden.run(network, pixels, progress=step)["class"]


def top1(
    model: BinaryResNet,
    images: datasets.Images,
    *,
    integer: bool = False,
    step: Step = lambda done: None,
) -> float:
    """Percent of the images whose class the model, or its integer network, finds."""
    if images.pixels.shape[1:] != model.spec.input:
        raise UserError(
            f"images are {'x'.join(map(str, images.pixels.shape[1:]))}, the model takes "
            f"{'x'.join(map(str, model.spec.input))}; choose its data set with --dataset"
        )
    if images.classes != model.spec.classes:
        raise UserError(
            f"the data set has {images.classes} classes, the model {model.spec.classes}; choose "
            f"its data set with --dataset"
        )
    if integer:
        classes = integer_classes(lower(model), images.pixels, step)
    else:
        classes = classify(model, images.pixels, step)
    return 100.0 * float((classes == images.labels).mean())


def record(
    path: Path, images: datasets.Images, dataset: str, split: str, step: Step
) -> dict[str, Any]:
    """Measure both accuracies and keep them in the file's metrics["accuracy"]."""
    loaded = checkpoint.load(path)
    model = loaded.model()
    accuracy: dict[str, Any] = dict(dataset=dataset, split=split, images=len(images))
    for name, integer in (("float", False), ("integer", True)):
        accuracy[name] = round(top1(model, images, integer=integer, step=step), 2)
    checkpoint.save(path, model, {**loaded.metrics, "accuracy": accuracy})
    return accuracy


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
