"""Batches of a training set, augmented without a loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnnhw.datasets import Images
from bnnhw.training.recipe import Recipe
from bnnhw.training.team import ALONE, Team


@dataclass(frozen=True)
class Batch:
    """pixels : uint8 (B, C, H, W), channels last. labels : int64 (B,).
    taught : a teacher's logits float32 (B, classes), or None.
    """

    pixels: Tensor
    labels: Tensor
    taught: Tensor | None


class Batches:
    """Shuffled, randomly shifted and mirrored batches of a training set.

    Pixels that a shift brings in from outside are 128, the stem's zero.
    """

    def __init__(
        self, images: Images, recipe: Recipe, device: torch.device, taught: Tensor | None = None
    ) -> None:
        """taught : a teacher's logits (2, N, classes) of the images and of their mirror images."""
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
        """Yields whole batches and drops the rest.

        A team shares each batch. Its generators must be in the same state.
        """
        device, batch = self.pixels.device, self.recipe.batch
        count = len(self.labels)
        order = torch.randperm(count, generator=generator).to(device)
        shift = torch.randint(0, 2 * self.recipe.crop + 1, (count, 2), generator=generator)
        mirror = torch.rand(count, generator=generator) < (0.5 if self.recipe.flip else 0.0)
        shift, mirror = shift.to(device), mirror.to(device)
        rows = shift[:, :1] + torch.arange(self.height, device=device)
        across = torch.arange(self.width, device=device)
        columns = shift[:, 1:] + torch.where(mirror[:, None], across.flip(0), across)
        for start in range(0, len(self) * batch, batch):
            part = slice(start + team.rank, start + batch, team.size)
            chosen = order[part]
            pixels = self.pixels[chosen[:, None, None], rows[part, :, None], columns[part, None]]
            taught = None if self.taught is None else self.taught[mirror[part].long(), chosen]
            yield Batch(pixels.permute(0, 3, 1, 2), self.labels[chosen], taught)
