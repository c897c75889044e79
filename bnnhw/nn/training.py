"""Recipe, batches and the loop that trains a BinaryResNet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.data import Images
from bnnhw.errors import UserError
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.nn.team import ALONE, Team
from bnnhw.spec import NetworkSpec

LATENT_LIMIT = 1.5
WARM_UP = 0.03
TEMPERATURE = 4.0
CALIBRATION = 10_000  # images
TEST_BATCH = 100
Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Recipe:
    """How to train. The schedule ends with `epochs` or with `minutes`, whichever comes first.

    batch : images a step, of all processes together. crop : greatest random shift in pixels.
    distil : weight of a teacher's logits in the loss (arXiv:1503.02531), from 0 to 1.
    """

    dataset: str = "cifar10"
    epochs: int | None = None
    minutes: float | None = None
    batch: int = 64
    lr: float = 1e-2
    crop: int = 2
    flip: bool = True
    seed: int = 0
    distil: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs is None and self.minutes is None:
            raise UserError("no end to the training: give --epochs, --budget-minutes or both")
        for name in ("epochs", "minutes", "batch", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value}: must be greater than 0")
        if not 0 <= self.crop <= 16:
            raise UserError(f"crop={self.crop}: must lie in 0 to 16 pixels")
        if not 0 <= self.distil <= 1:
            raise UserError(f"distil={self.distil}: must lie in 0 to 1")


@dataclass(frozen=True)
class Batch:
    """pixels uint8 (B, C, H, W), channels last. labels int64 (B,).

    taught : a teacher's logits float32 (B, classes), or None.
    """

    pixels: Tensor
    labels: Tensor
    taught: Tensor | None


def distillation(logits: Tensor, taught: Tensor) -> Tensor:
    """KL divergence of softened predictions from the teacher's, scaled to the loss's gradients."""
    soft = F.log_softmax(logits.float() / TEMPERATURE, 1)
    target = F.log_softmax(taught / TEMPERATURE, 1)
    divergence = F.kl_div(soft, target, reduction="batchmean", log_target=True)
    return divergence * TEMPERATURE**2


class Batches:
    """Shuffled, randomly shifted and mirrored batches of a training set, without a loop.

    Pixels that a shift brings in from outside are 128, the stem's zero.
    """

    def __init__(
        self, images: Images, recipe: Recipe, device: torch.device, taught: Tensor | None = None
    ) -> None:
        """taught : a teacher's logits (2, N, classes) of the images and their mirror images."""
        pad = recipe.crop
        self.height, self.width = images.pixels.shape[1:3]
        padded = np.pad(
            images.pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=128
        )
        self.pixels = torch.from_numpy(padded).to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.taught = None if taught is None else taught.to(device)
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self.labels) // self.recipe.batch

    def epoch(self, generator: torch.Generator, team: Team = ALONE) -> Iterator[Batch]:
        """Yields whole batches; the last rest is dropped.

        A team shares each batch; its generators must be in the same state.
        """
        device, batch = self.pixels.device, self.recipe.batch
        count = len(self.labels)
        order = torch.randperm(count, generator=generator).to(device)
        shift = torch.randint(0, 2 * self.recipe.crop + 1, (count, 2), generator=generator)
        mirror = torch.rand(count, generator=generator) < (0.5 if self.recipe.flip else 0.0)
        rows = (shift[:, :1] + torch.arange(self.height)).to(device)
        across = torch.arange(self.width)
        across = torch.where(mirror[:, None], across.flip(0), across)
        columns = (shift[:, 1:] + across).to(device)
        mirror = mirror.to(device)
        for start in range(0, len(self) * batch, batch):
            part = slice(start + team.rank, start + batch, team.size)
            chosen = order[part]
            pixels = self.pixels[chosen[:, None, None], rows[part, :, None], columns[part, None]]
            taught = None if self.taught is None else self.taught[mirror[part].long(), chosen]
            yield Batch(pixels.permute(0, 3, 1, 2), self.labels[chosen], taught)


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
        team: Team = ALONE, taught: Tensor | None = None,
    ) -> None:  # fmt: skip
        if (taught is None) != (recipe.distil == 0):
            raise UserError("distillation needs a teacher and a weight: give both or none")
        self.recipe, self.validation, self.team = recipe, validation, team
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        model = BinaryResNet(spec).to(self.device, memory_format=torch.channels_last)
        self.model = model
        self.optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr)
        self.batches = Batches(train, recipe, self.device, taught)
        self.calibration = train.pixels[:CALIBRATION]
        if not len(self.batches):
            raise UserError(f"batch={recipe.batch}: there are only {len(train)} training images")
        self.epoch, self.seconds = 0, 0.0

    def progress(self, step: int, seconds: float) -> float:
        """Part of the schedule that is done, in [0, 1]."""
        parts = [0.0]
        if self.recipe.epochs is not None:
            parts.append((self.epoch + step / len(self.batches)) / self.recipe.epochs)
        if self.recipe.minutes is not None:
            parts.append(seconds / (60 * self.recipe.minutes))
        return min(1.0, max(parts))

    def run(self, log: Log, after_epoch: Callable[[float], None]) -> None:
        """Train to the end of the schedule; `after_epoch` gets the validation top-1."""
        while self.progress(0, self.seconds) < 1:
            started, before = time.monotonic(), self.seconds
            loss = self._run_epoch(started, log)
            self.epoch += 1
            self.team.average_statistics(self.model)
            top1 = self._validate() if self.team.rank == 0 else 0.0
            self.seconds = self.team.agree(before + time.monotonic() - started)
            if self.team.rank == 0:
                log(dict(epoch=self.epoch, seconds=round(self.seconds), loss=round(loss, 4),
                         validation=round(top1, 2)))  # fmt: skip
                after_epoch(top1)
        if self.team.rank == 0:
            after_epoch(self._finish())
        log(dict(done=1.0, seconds=self.seconds))

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
        classes = classify(self.model, self.validation.pixels)
        return 100.0 * float((classes == self.validation.labels).mean())

    def _run_epoch(self, started: float, log: Log) -> float:
        self.model.train()
        total = torch.zeros(())
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
        rate = self.recipe.lr * min(1.0, (done + 1e-3) / WARM_UP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(batch.pixels)
        loss = F.cross_entropy(logits, batch.labels)
        if batch.taught is not None:
            soft = distillation(logits, batch.taught)
            loss = (1 - self.recipe.distil) * loss + self.recipe.distil * soft
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.team.average_gradients(self.model)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_clamp_min_(self.model.latent_weights(), -LATENT_LIMIT)
            torch._foreach_clamp_max_(self.model.latent_weights(), LATENT_LIMIT)
        return loss.detach().cpu()

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, as plain values and tensors."""
        return dict(
            recipe=asdict(self.recipe), spec=self.model.spec.to_dict(), epoch=self.epoch,
            seconds=self.seconds, generator=self.generator.get_state(),
            model=self.model.state_dict(), optimiser=self.optimiser.state_dict(),
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
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
