"""A float ResNet (He et al. 2016, arXiv:1512.03385, option A shortcuts) as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.errors import UserError
from bnnhw.nn.kernels.memory import channels_last

FORMAT = "bnnhw-teacher"
MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's colours
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
    """A ResNet in real numbers: pixels uint8 (B, channels, H, W) -> logits (B, classes).

    Without arguments it is CIFAR-10's ResNet-20. A stage is `blocks` times two convolutions.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, blocks: int = 3, widths: tuple[int, ...] = (16, 32, 64), classes: int = 10,
        channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks, self.widths = blocks, tuple(widths)
        self.classes, self.channels = classes, channels
        colours = (MEAN, DEVIATION) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
        for name, values in zip(("mean", "deviation"), colours, strict=True):
            constant = torch.tensor(values).reshape(1, channels, 1, 1)
            self.register_buffer(name, constant, persistent=False)
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        body, inside = [], widths[0]
        for stage, outside in enumerate(widths):
            for block in range(blocks):
                body.append(Block(inside, outside, 2 if stage and not block else 1))
                inside = outside
        self.body = nn.Sequential(*body)
        self.fc = nn.Linear(inside, classes)

    def stages(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the logits, and the map (B, C, H, W) after each stage."""
        x = (pixels / 255 - self.mean) / self.deviation
        x = F.relu(self.bn(self.stem(x)))
        maps = []
        for at, block in enumerate(self.body, 1):
            x = block(x)
            if at % self.blocks == 0:
                maps.append(x)
        return self.fc(x.mean((2, 3))), maps

    def forward(self, pixels: Tensor) -> Tensor:
        return self.stages(pixels)[0]

    def content(self) -> dict[str, Any]:
        """Returns what `load_teacher` reads, as plain values and tensors."""
        shape = dict(blocks=self.blocks, widths=list(self.widths), classes=self.classes,
                     channels=self.channels)  # fmt: skip
        return dict(format=FORMAT, shape=shape, state=self.state_dict())


def load_teacher(content: Any, where: str) -> Teacher:
    """Returns a teacher from its `content`, or from a bare state dict of CIFAR-10's ResNet-20.

    Raises UserError where `content` is neither.
    """
    shape: Any = {}
    state = content
    if isinstance(content, dict) and content.get("format") == FORMAT:
        shape, state = content.get("shape"), content.get("state")
    try:
        teacher = Teacher(**shape)
        teacher.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError):
        raise UserError(
            f"{where}: neither a teacher of python -m bnnhw.teach nor the state dict of a float "
            f"CIFAR-10 ResNet-20; give one of them"
        ) from None
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def teach(
    teacher: Teacher, pixels: np.ndarray, device: torch.device | None = None,
    step: Callable[[int], None] = lambda done: None,
) -> Tensor:  # fmt: skip
    """Returns a teacher's logits, float32 (2, N, classes), of images and of their mirror images.

    pixels : uint8 (N, H, W, C). step : is called with the number of images done.
    """
    device = torch.device("cpu") if device is None else device
    logits: list[list[Tensor]] = [[], []]
    teacher = channels_last(teacher.to(device))
    for start in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(pixels[start : start + BATCH]).permute(0, 3, 1, 2).to(device)
        for side, images in enumerate((batch, batch.flip(3))):
            with torch.autocast(device.type, torch.bfloat16):
                logits[side].append(teacher(images).float())
        step(start + len(batch))
    return torch.stack([torch.cat(side) for side in logits])
