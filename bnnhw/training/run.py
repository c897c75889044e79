"""Trainings: from data, a recipe and perhaps a teacher to a model.pt and its state."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bnnhw import datasets
from bnnhw.datasets import Images
from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint
from bnnhw.nn.checkpoint import Checkpoint
from bnnhw.nn.teacher import Teacher
from bnnhw.nn.teachers import read_teacher
from bnnhw.training.journal import Lines, TensorBoard, lines_path, state_path, to_all
from bnnhw.training.options import command_line
from bnnhw.training.streams import integers
from bnnhw.training.teaching import TeacherTrainer
from bnnhw.training.team import ALONE, Team
from bnnhw.training.trainer import Log, Recipe, Trainer, random_images


def train(
    spec: NetworkSpec, recipe: Recipe, directory: str | None, out: Path,
    resume: bool = False, start: str | None = None, teacher: str | None = None,
    board: Path | None = None, compiled: bool = False, *,
    log: Log = lambda entry: None, team: Team = ALONE,
) -> Trainer:  # fmt: skip
    """Train; leaves model.pt at `out` after every epoch, and its training state in `out`.state.

    resume : go on from that state. start : a model.pt of the same parameters to begin with.
    teacher : a file of python -m bnnhw.teach, for spec.repair.teacher_student.
    board : directory of TensorBoard's files. The metrics of each epoch go to `out`.log.jsonl, too.
    team : the processes that train together; each must make the same call.
    """
    logs: list[Log] = [log] if team.rank == 0 else []
    if board is not None and team.rank == 0:
        logs.append(TensorBoard(board))
    images, validation = _images(spec, recipe, directory)
    if recipe.all_images:
        images += validation
    taught_by = None if teacher is None else read_teacher(teacher, spec)
    trainer = Trainer(
        spec, recipe, images, validation, team, taught_by, integers, compiled=compiled
    )
    kept = state_path(out)
    before: dict[str, Any] = {}
    if start is not None:
        loaded = checkpoint.load(checkpoint.find(start))
        before = dict(started_from=loaded.metrics)
        anew = _begin(trainer, loaded, start)
        if anew:
            before["begun_anew"] = anew
            log(dict(note=f"--start {start}: begins anew with {' and '.join(anew)}"))
    if resume:
        trainer.restore(checkpoint.read_inert(kept, "training state"), kept)
        if trainer.progress(0, trainer.seconds) >= 1:
            log(dict(note=f"{out}: has had all its epochs; more --epochs go on from there"))

    def keep(top1: float) -> None:
        metrics = dict(
            epochs=trainer.epoch, seconds=round(trainer.seconds), seed=recipe.seed,
            recipe=asdict(trainer.recipe), command=command_line(spec, trainer.recipe), **before,
        )  # fmt: skip
        if trainer.continued:
            metrics["continued"] = trainer.continued
        if images.names:
            metrics["classes"] = list(images.names)
        if not recipe.all_images:
            metrics["validation"] = round(top1, 2)
        checkpoint.save(out, trainer.model, metrics)
        checkpoint.write_atomic(trainer.state(), kept)

    if team.rank == 0:
        logs.append(Lines(lines_path(out), trainer.epoch))
        if not resume:
            kept.unlink(missing_ok=True)  # the network of an earlier one stays for an epoch
    trainer.run(to_all(logs), keep)
    return trainer


def _images(spec: NetworkSpec, recipe: Recipe, data: str | None) -> tuple[Images, Images]:
    """Returns the images to train on and those that are held out."""
    source = datasets.find(data, recipe.dataset)
    train, held = (
        source.fitting(split, spec.input, spec.classes, resize=recipe.resize)
        for split in ("train", "validation")
    )
    return train, held


def _begin(trainer: Trainer, loaded: Checkpoint, where: str) -> list[str]:
    """Take over the parameters of a network. Returns which parts have none of it.

    Formats and repair methods may differ as far as the parameters are the same. Activations that
    the network lacks begin as the identity, and a stem of another kind begins anew.
    """
    spec = trainer.model.spec
    if loaded.spec.repair.activation == "none":
        for layer in trainer.model.layers():
            if layer.activation is not None:
                layer.activation.begin_as_identity()
    mine, theirs = trainer.model.state_dict(), loaded.state
    if loaded.spec.repair.stem != spec.repair.stem:
        theirs = {name: part for name, part in theirs.items() if not _of_stem(name)}
    added = {
        name for name in mine.keys() - theirs.keys() if _of_stem(name) or ".activation." in name
    }
    state = {**{name: mine[name] for name in added}, **theirs}
    alike = replace(loaded.spec, formats=spec.formats, repair=spec.repair) == spec
    wanted, given = ({name: part.shape for name, part in s.items()} for s in (mine, state))
    if not alike or wanted != given:
        raise UserError(f"{where}: its network is {loaded.spec}, asked for is {spec}")
    trainer.model.load_state_dict(state)
    stem, activations = any(map(_of_stem, added)), any(".activation." in name for name in added)
    return ["the stem"] * stem + ["the activations"] * activations


def _of_stem(name: str) -> bool:
    """Whether a parameter is the stem's."""
    return name.startswith("stem.")


def benchmark(
    spec: NetworkSpec, recipe: Recipe, seconds: float, compiled: bool = False, *,
    team: Team = ALONE,
) -> dict[str, Any]:  # fmt: skip
    """Train on random pixels for a while. Returns how fast it went; no data set is needed."""
    images = random_images(spec, 8 * recipe.batch)
    teacher = None
    if spec.repair.teacher_student != "none":
        teacher = Teacher(spec.blocks[0], spec.widths, spec.classes, spec.input[2])
    trainer = Trainer(spec, recipe, images, images, team, teacher, compiled=compiled)
    speed = trainer.measure(seconds)
    return dict(
        images_per_second=round(speed, 1), batch=recipe.batch, processes=team.size,
        device=str(trainer.device), compiled=compiled, torch=torch.__version__,
    )  # fmt: skip


def train_teacher(
    spec: NetworkSpec, recipe: Recipe, directory: str | None, out: Path, resume: bool = False, *,
    log: Log = lambda entry: None, team: Team = ALONE,
) -> TeacherTrainer:  # fmt: skip
    """Train the float network of spec's depth and widths; leaves it at `out` after every epoch.

    resume : go on from `out`.state. The metrics of each epoch go to `out`.log.jsonl, too.
    team : the processes that train together; each must make the same call.
    """
    images, validation = _images(spec, recipe, directory)
    trainer = TeacherTrainer(spec.blocks[0], spec.widths, recipe, images, validation, team)
    kept = state_path(out)
    if resume:
        trainer.restore(checkpoint.read_inert(kept, "training state"), kept)

    def keep(top1: float) -> None:
        checkpoint.write_atomic(trainer.model.content(), out)
        checkpoint.write_atomic(trainer.state(), kept)

    logs: list[Log] = []
    if team.rank == 0:
        logs = [log, Lines(lines_path(out), trainer.epoch)]
        if not resume:
            kept.unlink(missing_ok=True)
    trainer.run(to_all(logs), keep)
    return trainer
