"""One run of a study: trains a network and keeps its model, its log and its result."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw import datasets, golden
from bnnhw.errors import UserError
from bnnhw.jobs.files import read_json, write_text
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import BinaryResNet, checkpoint
from bnnhw.nn.teachers import read_teacher
from bnnhw.training.inference import classify
from bnnhw.training.journal import Lines, lines_path, state_path
from bnnhw.training.recipe import Recipe
from bnnhw.training.streams import integers
from bnnhw.training.trainer import Trainer

_ALONE = threading.Lock()  # random numbers are drawn from the process's one generator


@dataclass(frozen=True)
class Experiment:
    """What is trained, and where its files go. Two equal experiments have the same files.

    method, settings : its name in the study, and what differs from the baseline.
    images : how many of the first training images it trains on.
    teacher : the file of the float network, or None.
    digest : of the images, where the data set's name does not say which they are.
    """

    method: str
    settings: Mapping[str, Any]
    spec: NetworkSpec
    recipe: Recipe
    images: int
    directory: str | None
    teacher: str | None
    results: Path
    models: Path
    digest: str | None = None

    @cached_property
    def key(self) -> str:
        """The name of its files: the method, the seed, and a digest of what shapes the result."""
        taught = self.teacher and checkpoint.sha256(self.teacher)
        recipe = {k: v for k, v in asdict(self.recipe).items() if k != "resize" or v}
        asked = [self.spec.to_dict(), recipe, self.images, taught]
        asked += [self.digest] if self.digest else []
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        slug = re.sub(r"[^a-z0-9_]+", "-", self.method)
        return f"{self.recipe.dataset}-{slug}-seed{self.recipe.seed}-{digest[:8]}"

    @property
    def result_path(self) -> Path:
        return self.results / f"{self.key}.json"

    @property
    def model_path(self) -> Path:
        return self.models / f"{self.key}.pt"

    def result(self) -> dict[str, Any] | None:
        """The result of an earlier run, or None if none has ended."""
        return read_json(self.result_path) if self.result_path.exists() else None


def perform(experiment: Experiment) -> None:
    """Train, measure both accuracies on the validation images, and leave the result.

    Goes on from the last whole epoch of a run that broke off. It is meant for a process of its own
    and does not limit that process's threads. Two in one process take turns.
    """
    with _ALONE:
        _perform(experiment)


def _perform(experiment: Experiment) -> None:
    recipe, path = experiment.recipe, experiment.model_path
    source = datasets.find(experiment.directory, recipe.dataset)
    train, validation = (
        source.fitting(split, experiment.spec.input, experiment.spec.classes, resize=recipe.resize)
        for split in ("train", "validation")
    )
    train = train.first(experiment.images)
    teacher = read_teacher(experiment.teacher, experiment.spec) if experiment.teacher else None
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        experiment.spec, recipe, train, validation, teacher=teacher, integers=integers
    )
    _train(trainer, path)
    real = _percent(classify(trainer.model, validation.pixels), validation)
    integer, refused = _integer_top1(trainer.model, validation)
    result = dict(
        method=experiment.method, settings=dict(experiment.settings), seed=recipe.seed,
        dataset=recipe.dataset, epochs=recipe.epochs, train_images=len(train),
        split="validation", validation_images=len(validation),
        float=real, integer=integer, integer_refused=refused,
        seconds=round(trainer.seconds, 1), device=str(trainer.device),
        spec=experiment.spec.to_dict(), recipe=asdict(recipe),
        teacher=experiment.teacher and Path(experiment.teacher).name,
        versions=versions(),
    )  # fmt: skip
    known = {k: v for k, v in result.items() if k != "spec"}
    if train.names:
        known["classes"] = list(train.names)
    checkpoint.save(path, trainer.model, known)
    result |= dict(model=path.name, model_sha256=checkpoint.sha256(path))
    write_text(experiment.result_path, json.dumps(result, indent=2) + "\n")
    state_path(path).unlink(missing_ok=True)


def _train(trainer: Trainer, model: Path) -> None:
    """Train to the end; keeps state and metrics beside `model`."""
    state = state_path(model)
    if state.exists():
        trainer.restore(checkpoint.read_inert(state, "training state"), state)

    def keep(top1: float) -> None:
        checkpoint.write_atomic(trainer.state(), state)

    trainer.run(Lines(lines_path(model), trainer.epoch), keep)


def epochs_done(experiment: Experiment) -> int:
    """Returns how many epochs are over of a run that goes on, here or elsewhere."""
    lines = lines_path(experiment.model_path)
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def _integer_top1(model: BinaryResNet, images: datasets.Images) -> tuple[float | None, str | None]:
    """Returns the percentage that the device's arithmetic gets right, or None and why it cannot be
    built.
    """
    try:
        network = lower(model)
    except UserError as error:
        return None, str(error)
    return _percent(golden.run(network, images.pixels)["class"], images), None


def _percent(classes: np.ndarray, images: datasets.Images) -> float:
    return round(100.0 * float((classes == images.labels).mean()), 2)


def versions() -> dict[str, str]:
    """Returns the versions of everything that the accuracies depend on."""
    found = {name: metadata.version(name) for name in ("torch", "numpy")}
    return dict(python=platform.python_version()) | found
