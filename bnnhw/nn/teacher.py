"""A full-precision ResNet (He et al. 2016, arXiv:1512.03385, option A shortcuts) as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.errors import UserError

MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)
BATCH = 100


class Block(nn.Module):
    """Two convolutions and a shortcut: (B, inside, H, W) -> (B, outside, H / stride, ...)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(outside)
        self.c2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(outside)
        self.stride, self.missing = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        front = self.missing // 2
        x = F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.missing - front)
        )
        return F.relu(x + y)


class Teacher(nn.Module):
    """CIFAR-10 ResNet-20 in real numbers: pixels uint8 (B, 3, H, W) -> logits (B, 10)."""

    def __init__(self, blocks: int = 3, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        body, inside = [], widths[0]
        for stage, outside in enumerate(widths):
            for block in range(blocks):
                body.append(Block(inside, outside, 2 if stage and not block else 1))
                inside = outside
        self.body = nn.Sequential(*body)
        self.fc = nn.Linear(inside, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        shape = (1, 3, 1, 1)
        mean, deviation = (torch.tensor(c).reshape(shape).to(pixels.device)
                           for c in (MEAN, DEVIATION))  # fmt: skip
        x = (pixels / 255 - mean) / deviation
        x = self.body(F.relu(self.bn(self.stem(x))))
        return self.fc(x.mean((2, 3)))


def load_teacher(state: Any, where: str) -> Teacher:
    """A teacher from its state dict; UserError where that is none of this network."""
    teacher = Teacher()
    try:
        teacher.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
        raise UserError(
            f"{where}: not the state dict of a float CIFAR-10 ResNet-20; give such a teacher"
        ) from None
    return teacher.eval()


@torch.inference_mode()
def teach(
    teacher: Teacher, pixels: np.ndarray, step: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Logits float32 (2, N, classes) of uint8 pixels (N, H, W, 3) and of their mirror images."""
    logits: list[list[Tensor]] = [[], []]
    teacher = teacher.to(memory_format=torch.channels_last)
    for start in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(pixels[start : start + BATCH]).permute(0, 3, 1, 2)
        for side, images in enumerate((batch, batch.flip(3))):
            with torch.autocast("cpu", torch.bfloat16):
                logits[side].append(teacher(images).float())
        step(start + len(batch))
    return torch.stack([torch.cat(side) for side in logits]).clone()
