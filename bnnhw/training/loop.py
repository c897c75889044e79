"""Epochs of one model until its schedule ends, and the state to go on exactly."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnnhw.datasets import Images
from bnnhw.errors import Diverged, UserError
from bnnhw.nn.kernels import memory
from bnnhw.training.batches import Batch, Batches
from bnnhw.training.inference import hits
from bnnhw.training.recipe import Recipe
from bnnhw.training.team import ALONE, Team

SCHEDULE = ("epochs", "minutes")
LEFT_OUT = "not set"  # of settings that a network has without
ADDED: dict[str, Any] = dict(images=None, continued=[])  # what states of earlier versions lack
FINITE = 50  # steps from one look at the loss to the next
Log = Callable[[dict[str, Any]], None]


class Loop(ABC):
    """What every training has in common. A subclass makes `model` and says what a step is.

    The constructor seeds PyTorch with the recipe's seed, before the subclass makes its model.
    """

    model: nn.Module

    def __init__(
        self, recipe: Recipe, train: Images, validation: Images, team: Team = ALONE,
        taught: Tensor | None = None,
    ) -> None:  # fmt: skip
        """taught : a teacher's logits, as Batches takes them."""
        self.recipe, self.validation, self.team, self.device = recipe, validation, team, team.device
        memory.keep()
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.batches = Batches(train, recipe, self.device, taught)
        if not len(self.batches):
            raise UserError(f"batch={recipe.batch}: there are only {len(train)} training images")
        self.images = train.digest()
        self.epoch, self.seconds = 0, 0.0
        self.continued: list[dict[str, Any]] = []

    def progress(self, step: int, seconds: float) -> float:
        """Returns the part of the schedule that is done, in [0, 1]."""
        parts = [0.0]
        if self.recipe.epochs is not None:
            parts.append((self.epoch + step / len(self.batches)) / self.recipe.epochs)
        if self.recipe.minutes is not None:
            parts.append(seconds / (60 * self.recipe.minutes))
        return min(1.0, max(parts))

    def run(self, log: Log, after_epoch: Callable[[float], None]) -> None:
        """Train to the end of the schedule. `after_epoch` gets the validation top-1.

        log : gets {done, seconds} now and then. In the first process it also gets {epoch, seconds,
            loss, validation, rate} after each epoch.
        """
        while self.progress(0, self.seconds) < 1:
            started, before = time.monotonic(), self.seconds
            self._begin_epoch()
            loss = self._run_epoch(started, log)
            self.team.average_statistics(self.model)
            self._require_finite(*self.model.state_dict().values())
            self.epoch += 1
            top1 = self._validate()
            self.seconds = self.team.agree(before + time.monotonic() - started)
            if self.team.rank == 0:
                done = self.progress(0, self.seconds)
                log(dict(epoch=self.epoch, seconds=round(self.seconds), loss=round(loss, 4),
                         validation=round(top1, 2), rate=self.recipe.rate(done)))  # fmt: skip
                after_epoch(top1)
        if self.team.rank == 0:
            self._finish(after_epoch)
        log(dict(done=1.0, seconds=self.seconds))

    def _run_epoch(self, started: float, log: Log) -> float:
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
            if step % FINITE == 0:
                self._require_finite(total)
        self._require_finite(total)
        return float(total) / max(1, step)

    def _require_finite(self, *tensors: Tensor) -> None:
        """Raises Diverged, in every process, where any process has a NaN or infinite number."""
        fine = all(bool(t.isfinite().all()) for t in tensors if t.dtype.is_floating_point)
        share = torch.tensor([float(fine)], dtype=torch.float64)
        self.team.average([share])
        if float(share) < 1:
            raise Diverged(
                f"epoch {self.epoch + 1}: the loss or a weight is no longer a "
                f"finite number; what the epochs before left is kept; try a smaller --lr"
            )

    def _begin_epoch(self) -> None:
        """Prepare the model."""
        self.model.train()

    @abstractmethod
    def _step(self, batch: Batch, done: float) -> Tensor:
        """Take one step with `done` of the schedule over. Returns the loss."""

    def _validate(self) -> float:
        """Returns top-1 of the validation set in percent. Each process takes its share."""
        share = self.validation.part(slice(self.team.rank, None, self.team.size))
        mean = torch.tensor([self._hits(share)], dtype=torch.float64)
        self.team.average([mean])
        return 100.0 * float(mean) * self.team.size / len(self.validation)

    def _hits(self, images: Images) -> float:
        """Returns how many of the images the model knows, in the arithmetic of its training."""
        with torch.autocast(self.device.type, torch.bfloat16):
            return hits(self.model, images)

    def _finish(self, after_epoch: Callable[[float], None]) -> None:
        """Do what the first process does at the end. A subclass may have something to do."""
        return None

    @abstractmethod
    def _network(self) -> dict[str, Any]:
        """Returns what network it is, in plain values. A state fits no other network."""

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """Returns everything that has a state_dict."""

    def state(self) -> dict[str, Any]:
        """Returns everything that `restore` needs, as plain values and tensors."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return dict(
            recipe=asdict(self.recipe), network=self._network(), images=self.images,
            continued=self.continued, epoch=self.epoch, seconds=self.seconds,
            generator=self.generator.get_state(), random=torch.get_rng_state(), **parts,
        )  # fmt: skip

    def restore(self, state: Any, where: Path) -> None:
        """Go on from `state`, whose settings must be the same.

        The schedule may be longer: `continued` then says what it was and how far it had come.
        Raises UserError that names every other setting that differs.
        """
        mine = self.state()
        if not isinstance(state, dict) or (mine.keys() ^ state.keys()) - ADDED.keys():
            raise UserError(f"{where}: not a training state of this bnnhw; start without --resume")
        state = {**ADDED, **state}
        left_out = dict.fromkeys(_flat(state["network"]) | _flat(mine["network"]), LEFT_OUT)
        was, now = left_out | _settings(state), left_out | _settings(mine)
        longer = [name for name in SCHEDULE if _longer(was.get(name), now[name])]
        differ = [n for n in now if n in was and was[n] != now[n] and n not in longer]
        if differ:
            told = ", ".join(f"{name} was {was[name]}, is {now[name]}" for name in differ)
            raise UserError(f"{where}: {told}; resume with what it was started with")
        if state["images"] not in (None, self.images):
            raise UserError(f"{where}: was started with other images; give the same --data")
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.continued = list(state["continued"])
        if longer:
            before = {name: was[name] for name in SCHEDULE}
            self.continued.append(dict(epoch=self.epoch, **before))
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def _settings(state: dict[str, Any]) -> dict[str, Any]:
    """Returns every setting of a state by the name that options and recipe files give it."""
    return _flat(state["recipe"]) | _flat(state["network"])


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a table and of the tables in it."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def _longer(was: float | None, now: float | None) -> bool:
    """Whether an end of a schedule moved away. None is no end."""
    return was is not None and (now is None or now > was)
