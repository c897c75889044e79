"""The accuracy of a model on images: of its float numbers, and of its integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw import datasets, golden
from bnnhw.errors import UserError
from bnnhw.lowering.lower import lower
from bnnhw.lowering.report import changes
from bnnhw.network import real
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NumberFormats
from bnnhw.nn import BinaryResNet, checkpoint
from bnnhw.training.inference import classify

Step = Callable[[int], None]
SAMPLE = 200  # images, for the ranges of the stream


def integer_classes(network: IntegerNetwork, pixels: np.ndarray, step: Step) -> np.ndarray:
    """Returns the classes int64 (N,) that the integer network gives uint8 pixels (N, H, W, C)."""
    return golden.run(network, pixels, progress=step)["class"]


def top1(
    model: BinaryResNet | FoldedNetwork,
    images: datasets.Images,
    *,
    integer: bool | IntegerNetwork = False,
    step: Step = lambda done: None,
) -> float:
    """Returns the percentage of images whose class the model, or its integer network, finds.

    integer : whether to lower the model, or the integers that it was lowered to.
    """
    images.require("images", model.spec.input, model.spec.classes)
    if integer:
        network = integer if isinstance(integer, IntegerNetwork) else lower(model)
        classes = integer_classes(network, images.pixels, step)
    elif isinstance(model, FoldedNetwork):
        classes = real.run(model, images.pixels, rounded=model.rounded).argmax(1)
    else:
        classes = classify(model, images.pixels, step)
    return 100.0 * float((classes == images.labels).mean())


def integer_report(
    asked: NumberFormats, network: IntegerNetwork, pixels: np.ndarray
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the formats of an integer network and its stream's ranges, and what to say of both.

    asked : the formats that the network was to have. The ranges are of the first images.
    """
    found = golden.streams(network, pixels[:SAMPLE])
    entry = dict(formats=asdict(network.spec.formats), streams=[asdict(each) for each in found])
    return entry, (*changes(asked, network), *golden.advice(found))


def record(
    path: Path, images: datasets.Images, dataset: str, split: str, step: Step
) -> dict[str, Any]:
    """Measure both accuracies, keep them in the file's metrics["accuracy"] and return them."""
    if checkpoint.is_bundled(path):
        raise UserError(f"--record: {path} belongs to bnnhw; copy it and give the copy")
    loaded = checkpoint.load(path)
    model = loaded.network or loaded.model()
    accuracy: dict[str, Any] = dict(dataset=dataset, split=split, images=len(images))
    for name, integer in (("float", False), ("integer", True)):
        accuracy[name] = round(top1(model, images, integer=integer, step=step), 2)
    checkpoint.save(path, model, {**loaded.metrics, "accuracy": accuracy})
    return accuracy
