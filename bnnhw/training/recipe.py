"""How to train: the numbers of a training, and the schedule of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from bnnhw.errors import UserError
from bnnhw.network.repair import Repair

LEARNING_RATES = dict(adam=1e-2, sgd=0.1, bop=1e-2)
WEIGHT_DECAYS = dict(adam=0.0, sgd=1e-4, bop=0.0)
PENALTIES = dict(none=0.0, l2=5e-5, r1=1e-5, r2=1e-5, kurtosis=0.01)
DISTIL = 0.5
EXACT_RATE = 0.02  # of the peak, where the exact epochs begin


def settled(value: float | None) -> float:
    """Returns the number. Raises UserError where it still waits for `Recipe.settled`."""
    if value is None:
        raise UserError("recipe: a number is missing; give lr, weight_decay, distil and penalty")
    return value


@dataclass(frozen=True)
class Recipe:
    """How to train. The schedule ends with `epochs` or with `minutes`, whichever comes first.

    batch : images a step, of all processes together. crop : the greatest random shift in pixels.
    lr : the optimiser's greatest rate. warm_up : the part of the schedule in which it is reached.
    distil : weight of a teacher in the loss, from 0 to 1. penalty : weight of the regularisation.
    exact_epochs : how many of the last epochs train the integer network's own arithmetic.
    dataset : the name of the data set.
    resize : whether its images are resized to the network's input.
    all_images : whether the validation images are trained on, too. Nothing can be chosen by them
        then.

    None leaves a number to the repair methods: see `settled`.
    """

    dataset: str = "cifar10"
    epochs: int | None = None
    minutes: float | None = None
    batch: int = 64
    lr: float | None = None
    crop: int = 2
    flip: bool = True
    seed: int = 0
    distil: float | None = None
    weight_decay: float | None = None
    penalty: float | None = None
    warm_up: float = 0.03
    exact_epochs: int = 0
    all_images: bool = False
    resize: bool = False

    def __post_init__(self) -> None:
        if self.epochs is None and self.minutes is None:
            raise UserError("no end to the training: give --epochs, --budget-minutes or both")
        for name in ("epochs", "batch", "crop", "seed", "exact_epochs"):
            self._check_type(name, (int,), "a whole number")
        for name in ("minutes", "lr", "distil", "weight_decay", "penalty", "warm_up"):
            self._check_type(name, (int, float), "a number")
        for name in ("flip", "all_images", "resize"):
            self._check_type(name, (bool,), "true or false")
        for name in ("epochs", "minutes", "batch", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value}: must be greater than 0")
        for name in ("weight_decay", "penalty"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"{name}={value}: must not be negative")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: must be a whole number from 0 to 2**63 - 1")
        if not 0 <= self.crop <= 16:
            raise UserError(f"crop={self.crop}: must lie in 0 to 16 pixels")
        for name in ("distil", "warm_up"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name}={value}: must lie in 0 to 1")
        if self.exact_epochs and not 0 <= self.exact_epochs <= (self.epochs or 0):
            raise UserError(
                f"exact_epochs={self.exact_epochs}: they are the last of the schedule; give "
                f"--epochs with at least as many"
            )

    def _check_type(self, name: str, kinds: tuple[type, ...], what: str) -> None:
        value = getattr(self, name)
        optional = getattr(type(self), name) is None  # the class attribute is the default
        if type(value) not in kinds and not (optional and value is None):
            raise UserError(f"{name}={value!r}: must be {what}")

    def settled(self, repair: Repair) -> Recipe:
        """Returns this recipe with a number for each None but `epochs` and `minutes`."""
        taught = repair.teacher_student != "none"
        if self.distil and not taught:
            raise UserError(
                f"distil={self.distil}: there is no teacher in these repair methods; give "
                f"--repair teacher_student=logits (or attention)"
            )
        if self.penalty and repair.regularization == "none":
            raise UserError(
                f"penalty={self.penalty}: there is no regularization in these repair methods; "
                f"choose one with --repair regularization=..."
            )
        usual: dict[str, Any] = dict(
            lr=LEARNING_RATES[repair.optimizer],
            weight_decay=WEIGHT_DECAYS[repair.optimizer],
            distil=DISTIL if taught else 0.0,
            penalty=PENALTIES[repair.regularization],
        )
        return replace(
            self, **{name: value for name, value in usual.items() if getattr(self, name) is None}
        )

    @property
    def first_exact(self) -> int:
        """The first of the exact epochs, counted from 0."""
        return (self.epochs or 0) - self.exact_epochs

    @property
    def exact_part(self) -> float:
        """The part of the schedule that the exact epochs are."""
        return self.exact_epochs / self.epochs if self.exact_epochs and self.epochs else 0.0

    def phase(self, done: float) -> float:
        """Returns how much of the phase before the exact epochs is over, with `done` of the
        schedule over.
        """
        return min(1.0, done / (1 - self.exact_part)) if self.exact_part < 1 else 1.0

    def rate(self, done: float) -> float:
        """Returns the factor of the learning rate, in [0, 1], with `done` of the schedule over.

        It is a warm-up and a cosine, then a short line to 0.
        """
        if self.exact_part and done >= 1 - self.exact_part:
            return EXACT_RATE * (1 - done) / self.exact_part
        over = self.phase(done)
        warm = min(1.0, (over + 1e-3) / self.warm_up) if self.warm_up else 1.0
        return warm * 0.5 * (1 + math.cos(math.pi * over))
