"""The loop that trains a BinaryResNet, and all of its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnnhw.data import Images
from bnnhw.errors import UserError
from bnnhw.nn import losses, optimisers
from bnnhw.nn.batches import Batch, Batches
from bnnhw.nn.exact import Integers, follow, freeze_statistics
from bnnhw.nn.recipe import Recipe
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.nn.teacher import Teacher, teach
from bnnhw.nn.team import ALONE, Team
from bnnhw.spec import NetworkSpec

CALIBRATION = 10_000  # images
TEST_BATCH = 100
WARM_UP_STEPS, STEPS = 3, 4  # of a measurement of speed
Log = Callable[[dict[str, Any]], None]

__all__ = ["Log", "Recipe", "Trainer", "classify", "random_images", "recalibrate"]


def random_images(spec: NetworkSpec, size: int) -> Images:
    """Random pixels and labels that the network takes, to measure its speed."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (size, *spec.input), dtype=np.uint8)
    return Images(pixels, generator.integers(0, spec.classes, size), spec.classes)


@torch.inference_mode()
def classify(
    model: BinaryResNet, pixels: np.ndarray, step: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Classes int64 (N,) that the float model gives uint8 pixels (N, H, W, C), in float32.

    step : called with the number of images done after every batch.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    classes = []
    for start in range(0, len(pixels), TEST_BATCH):
        batch = torch.from_numpy(pixels[start : start + TEST_BATCH]).to(device)
        classes.append(model(batch.permute(0, 3, 1, 2)).argmax(1).cpu().numpy())
        step(start + len(batch))
    model.train(training)
    return np.concatenate(classes)


@torch.no_grad()
def recalibrate(model: BinaryResNet, pixels: np.ndarray) -> None:
    """Make batch norm's running statistics the plain mean over uint8 pixels (N, H, W, C).

    Those of training are a moving average over the last few small batches, in bfloat16.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for start in range(0, len(pixels) // TEST_BATCH * TEST_BATCH or 1, TEST_BATCH):
        batch = torch.from_numpy(pixels[start : start + TEST_BATCH]).to(device)
        model(batch.permute(0, 3, 1, 2))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


class Trainer:
    """A model in training and all the state needed to go on exactly where it stopped."""

    def __init__(
        self, spec: NetworkSpec, recipe: Recipe, train: Images, validation: Images,
        team: Team = ALONE, teacher: Teacher | None = None,
        integers: Integers | None = None, *, compiled: bool = False,
    ) -> None:  # fmt: skip
        """teacher : what spec.repair.teacher_student learns from, and only then.

        integers : the integer network, for recipe.exact_epochs. compiled : by torch.compile.
        """
        kind = spec.repair.teacher_student
        if (teacher is None) != (kind == "none"):
            raise UserError(
                f"teacher_student={kind}: give --teacher with --repair teacher_student=logits "
                f"(or attention), and without neither"
            )
        if recipe.exact_epochs and integers is None:
            raise UserError("exact_epochs: needs the integer network; give one to the Trainer")
        self.recipe = recipe = recipe.settled(spec.repair)
        self.integers = integers
        self.validation, self.team, self.device = validation, team, team.device
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        model = BinaryResNet(spec).to(self.device, memory_format=torch.channels_last)
        self.model = model
        self.regulariser = losses.Penalty(model).to(self.device)
        self.optimiser = optimisers.build(
            model, self.regulariser, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        taught = None
        if kind == "logits":
            taught = teach(teacher, train.pixels, self.device)
        self.teacher = teacher.to(self.device) if kind == "attention" else None
        self.batches = Batches(train, recipe, self.device, taught)
        self.calibration = train.pixels[:CALIBRATION]
        if not len(self.batches):
            raise UserError(f"batch={recipe.batch}: there are only {len(train)} training images")
        self.forward = torch.compile(model.stages) if compiled else model.stages
        self.epoch, self.seconds, self.exact = 0, 0.0, False

    def progress(self, step: int, seconds: float) -> float:
        """Part of the schedule that is done, in [0, 1]."""
        parts = [0.0]
        if self.recipe.epochs is not None:
            parts.append((self.epoch + step / len(self.batches)) / self.recipe.epochs)
        if self.recipe.minutes is not None:
            parts.append(seconds / (60 * self.recipe.minutes))
        return min(1.0, max(parts))

    def run(self, log: Log, after_epoch: Callable[[float], None]) -> None:
        """Train to the end of the schedule; `after_epoch` gets the validation top-1.

        log : of the first process gets {done, seconds} now and then, and after each epoch
        {epoch, seconds, loss, validation, rate}.
        """
        while self.progress(0, self.seconds) < 1:
            started, before = time.monotonic(), self.seconds
            self._choose_phase()
            loss = self._run_epoch(started, log)
            self.epoch += 1
            if not self.exact:
                self.team.average_statistics(self.model)
            top1 = self._validate() if self.team.rank == 0 else 0.0
            self.seconds = self.team.agree(before + time.monotonic() - started)
            if self.team.rank == 0:
                done = self.progress(0, self.seconds)
                log(dict(epoch=self.epoch, seconds=round(self.seconds), loss=round(loss, 4),
                         validation=round(top1, 2), rate=self.recipe.rate(done)))  # fmt: skip
                after_epoch(top1)
        if self.team.rank == 0 and not self.recipe.exact_epochs:
            after_epoch(self._finish())
        log(dict(done=1.0, seconds=self.seconds))

    def _choose_phase(self) -> None:
        """Whether the next epoch is exact; the first such one begins with good statistics."""
        recipe = self.recipe
        self.exact = recipe.exact_epochs > 0 and self.epoch >= recipe.first_exact
        if self.exact and self.epoch == recipe.first_exact:
            recalibrate(self.model, self.calibration)

    def _finish(self) -> float:
        """Recalibrate batch norm where the validation set is the better for it; its top-1."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        top1 = self._validate()
        recalibrate(self.model, self.calibration)
        recalibrated = self._validate()
        if recalibrated >= top1:
            return recalibrated
        self.model.load_state_dict(before)
        return top1

    def _validate(self) -> float:
        """Top-1 in percent: of the integers where they are trained, else of the float network."""
        pixels = self.validation.pixels
        if self.exact and self.integers is not None:
            parts = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(TEST_BATCH)
            classes = torch.cat([self.integers(self.model, part)[1] for part in parts]).numpy()
        else:
            classes = classify(self.model, pixels)
        return 100.0 * float((classes == self.validation.labels).mean())

    def _run_epoch(self, started: float, log: Log) -> float:
        self.model.train()
        if self.exact:
            freeze_statistics(self.model)
        total = torch.zeros((), device=self.device)
        step = 0
        batches = self.batches.epoch(self.generator, self.team)
        for step, batch in enumerate(batches, 1):
            seconds = self.seconds + time.monotonic() - started
            done = self.team.agree(self.progress(step - 1, seconds))
            if done >= 1:
                break
            total += self._step(batch, done)
            if step % 10 == 0:
                log(dict(done=done, seconds=seconds))
        return float(total) / max(1, step)

    def _step(self, batch: Batch, done: float) -> Tensor:
        self.model.anneal(self.recipe.phase(done))
        logits, maps = self._outputs(batch.pixels)
        theirs = None
        if self.teacher is not None:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                _, theirs = self.teacher.stages(batch.pixels)
        loss = losses.objective(
            self.model, logits, batch.labels, taught=batch.taught, maps=maps, teacher_maps=theirs,
            distil=self.recipe.distil, regulariser=self.regulariser, penalty=self.recipe.penalty,
        )  # fmt: skip
        self.optimiser.zero_grad()
        loss.backward()
        self.team.average_gradients(self.model, self.regulariser)
        self.optimiser.step(self.recipe.rate(done))
        return loss.detach()

    def _outputs(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits and the streams after each stage."""
        with torch.autocast(self.device.type, torch.bfloat16):
            if not self.exact or self.integers is None:
                return self.forward(pixels)
            with follow(self.model, self.integers(self.model, pixels)[0]):
                return self.model.stages(pixels)

    def measure(self, seconds: float) -> float:
        """Images a second while training for about so long, after a few steps to warm up."""
        self.model.train()
        epochs = (self.batches.epoch(self.generator, self.team) for _ in count())
        batches = chain.from_iterable(epochs)
        for batch in islice(batches, WARM_UP_STEPS):
            self._step(batch, 0.0)
        self._synchronise()
        started, elapsed, steps = time.monotonic(), 0.0, 0
        while elapsed < seconds:
            for batch in islice(batches, STEPS):
                self._step(batch, 0.0)
            self._synchronise()
            steps += STEPS
            elapsed = self.team.agree(time.monotonic() - started)
        return steps * self.recipe.batch / elapsed

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, as plain values and tensors."""
        return dict(
            recipe=asdict(self.recipe), spec=self.model.spec.to_dict(), epoch=self.epoch,
            seconds=self.seconds, generator=self.generator.get_state(),
            random=torch.get_rng_state(), model=self.model.state_dict(),
            regulariser=self.regulariser.state_dict(), optimiser=self.optimiser.state_dict(),
        )  # fmt: skip

    def restore(self, state: Any, where: Path) -> None:
        """Go on from `state`; the recipe and the spec must be the ones it was made with."""
        mine = self.state()
        if not isinstance(state, dict) or state.keys() != mine.keys():
            raise UserError(f"{where}: not a training state of this bnnhw; start without --resume")
        for name in ("recipe", "spec"):
            if state[name] != mine[name]:
                raise UserError(
                    f"{where}: was started with {name} {state[name]}, now {mine[name]}; resume "
                    f"with the same options"
                )
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        self.model.load_state_dict(state["model"])
        self.regulariser.load_state_dict(state["regulariser"])
        self.optimiser.load_state_dict(state["optimiser"])
