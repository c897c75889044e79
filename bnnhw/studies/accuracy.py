"""The accuracy of a model on images: of its float numbers, and of its integers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw import datasets, golden
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.nn import BinaryResNet, checkpoint
from bnnhw.training.inference import classify

Step = Callable[[int], None]


def integer_classes(network: IntegerNetwork, pixels: np.ndarray, step: Step) -> np.ndarray:
    """Returns the classes int64 (N,) that the integer network gives uint8 pixels (N, H, W, C)."""
    return golden.run(network, pixels, progress=step)["class"]


def top1(
    model: BinaryResNet,
    images: datasets.Images,
    *,
    integer: bool = False,
    step: Step = lambda done: None,
) -> float:
    """Returns the percentage of images whose class the model, or its integer network, finds."""
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
    """Measure both accuracies, keep them in the file's metrics["accuracy"] and return them."""
    loaded = checkpoint.load(path)
    model = loaded.model()
    accuracy: dict[str, Any] = dict(dataset=dataset, split=split, images=len(images))
    for name, integer in (("float", False), ("integer", True)):
        accuracy[name] = round(top1(model, images, integer=integer, step=step), 2)
    checkpoint.save(path, model, {**loaded.metrics, "accuracy": accuracy})
    return accuracy
