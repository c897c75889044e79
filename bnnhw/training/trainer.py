"""Trains a BinaryResNet: its losses, its phases and its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnhw.datasets import Images
from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.kernels.memory import channels_last
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.nn.teacher import Teacher, teach
from bnnhw.training import losses, optimisers
from bnnhw.training.batches import Batch
from bnnhw.training.exact import Integers, follow, freeze_statistics
from bnnhw.training.graphs import Graphed
from bnnhw.training.inference import TEST_BATCH, classify, hits, recalibrate
from bnnhw.training.loop import Log, Loop
from bnnhw.training.recipe import Recipe, settled
from bnnhw.training.team import ALONE, Team

CALIBRATION = 10_000  # images
WARM_UP_STEPS, STEPS = 3, 4  # of a measurement of speed

Stages = Callable[[Tensor], tuple[Tensor, list[Tensor]]]

__all__ = ["Log", "Recipe", "Trainer", "classify", "random_images", "recalibrate"]


def random_images(spec: NetworkSpec, size: int) -> Images:
    """Returns random pixels and labels that the network takes, to measure its speed."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (size, *spec.input), dtype=np.uint8)
    return Images(pixels, generator.integers(0, spec.classes, size), spec.classes)


class Trainer(Loop):
    """A binary network in training, with all the state to go on exactly where it stopped."""

    model: BinaryResNet

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
        recipe = recipe.settled(spec.repair)
        taught = None
        if teacher is not None and kind == "logits":
            taught = teach(teacher, train.pixels, team.device)
        super().__init__(recipe, train, validation, team, taught)
        self.teacher: Teacher | None = None
        if teacher is not None and kind == "attention":
            self.teacher = teacher.to(self.device)
        self.integers, self.exact = integers, False
        self.model = model = channels_last(BinaryResNet(spec).to(self.device))
        self.forward: Stages = torch.compile(model.stages) if compiled else model.stages
        self.regulariser = losses.Penalty(model).to(self.device)
        self.optimiser = optimisers.build(
            model, self.regulariser, lr=settled(recipe.lr),
            weight_decay=settled(recipe.weight_decay),
        )  # fmt: skip
        self.calibration = train.pixels[:CALIBRATION]
        alone_on_gpu = self.device.type == "cuda" and team.size == 1
        self.graphed = Graphed(self._update) if alone_on_gpu else None

    def _begin_epoch(self) -> None:
        """Choose the phase. The first exact epoch begins with good statistics and keeps them."""
        recipe = self.recipe
        self.exact = recipe.exact_epochs > 0 and self.epoch >= recipe.first_exact
        if self.exact and self.epoch == recipe.first_exact:
            recalibrate(self.model, self.calibration)
        self.model.train()
        if self.exact:
            freeze_statistics(self.model)

    def _finish(self, after_epoch: Callable[[float], None]) -> None:
        """Recalibrate batch norm where that helps on the validation set."""
        if self.recipe.exact_epochs:
            return
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        trained = hits(self.model, self.validation)
        recalibrate(self.model, self.calibration)
        recalibrated = hits(self.model, self.validation)
        if recalibrated < trained:
            self.model.load_state_dict(before)
        after_epoch(100.0 * max(trained, recalibrated) / len(self.validation))

    def _hits(self, images: Images) -> float:
        """Returns the hits of the integers where these are trained, else of the float network."""
        if not self.exact or self.integers is None:
            return super()._hits(images)
        parts = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).split(TEST_BATCH)
        classes = torch.cat([self.integers(self.model, part)[1] for part in parts]).numpy()
        return float((classes == images.labels).sum())

    def _step(self, batch: Batch, done: float) -> Tensor:
        self.model.anneal(self.recipe.phase(done))
        self.optimiser.set_rate(self.recipe.rate(done))
        if self.graphed is not None and not self.exact:
            return self.graphed(batch, self.model.real)
        return self._update(batch)

    def _update(self, batch: Batch) -> Tensor:
        """Step all parameters. Returns the loss."""
        logits, maps = self._outputs(batch.pixels)
        theirs = None
        if self.teacher is not None:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                _, theirs = self.teacher.stages(batch.pixels)
        loss = losses.objective(
            self.model, logits, batch.labels, taught=batch.taught, maps=maps, teacher_maps=theirs,
            distil=settled(self.recipe.distil), regulariser=self.regulariser,
            penalty=settled(self.recipe.penalty),
        )  # fmt: skip
        self.optimiser.zero_grad()
        loss.backward()
        self.team.average_gradients(self.model, self.regulariser)
        self.optimiser.go()
        return loss.detach()

    def _outputs(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the logits and the streams after each stage."""
        with torch.autocast(self.device.type, torch.bfloat16):
            if not self.exact or self.integers is None:
                return self.forward(pixels)
            with follow(self.model, self.integers(self.model, pixels)[0]):
                return self.model.stages(pixels)

    def measure(self, seconds: float) -> float:
        """Returns images a second, from about so many seconds of training after a few steps to warm
        up.
        """
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

    def _network(self) -> dict[str, Any]:
        return self.model.spec.to_dict()

    def _parts(self) -> dict[str, Any]:
        return dict(model=self.model, regulariser=self.regulariser, optimiser=self.optimiser)
