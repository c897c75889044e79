"""Trains a float teacher."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnhw.datasets import Images
from bnnhw.nn.kernels.memory import channels_last
from bnnhw.nn.teacher import Teacher
from bnnhw.training.batches import Batch
from bnnhw.training.loop import Loop
from bnnhw.training.optimisers import MOMENTUM, Optimiser
from bnnhw.training.recipe import Recipe, settled
from bnnhw.training.team import ALONE, Team


class TeacherTrainer(Loop):
    """SGD with momentum 0.9 at the recipe's rate and weight decay, on labels only (1512.03385)."""

    model: Teacher

    def __init__(
        self, blocks: int, widths: tuple[int, ...], recipe: Recipe, train: Images,
        validation: Images, team: Team = ALONE,
    ) -> None:  # fmt: skip
        super().__init__(recipe, train, validation, team)
        teacher = Teacher(blocks, widths, train.classes, train.pixels.shape[3])
        self.model = channels_last(teacher.to(self.device))
        sgd = torch.optim.SGD(
            self.model.parameters(), lr=settled(recipe.lr), momentum=MOMENTUM,
            weight_decay=settled(recipe.weight_decay),
        )  # fmt: skip
        self.optimiser = Optimiser([sgd], [])

    def _step(self, batch: Batch, done: float) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(batch.pixels)
        loss = F.cross_entropy(logits.float(), batch.labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.team.average_gradients(self.model)
        self.optimiser.step(self.recipe.rate(done))
        return loss.detach()

    def _network(self) -> dict[str, Any]:
        shape: dict[str, Any] = self.model.content()["shape"]
        return shape

    def _parts(self) -> dict[str, Any]:
        return dict(model=self.model, optimiser=self.optimiser)
