"""A small binary network of PyTorch's own modules, as someone else might have trained it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

MEAN, STD = (0.305,), (0.377,)


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class Block(nn.Module):
    """Set about a centre, binary convolution, norm, shortcut, norm of the stream, two slopes."""

    def __init__(self, inside: int, outside: int, stride: int, sets: bool, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        self.after = nn.BatchNorm2d(outside) if norm else None
        self.act = nn.PReLU(outside)
        self.threshold = nn.Parameter(torch.zeros(1, inside, 1, 1))
        self.centre = nn.Parameter(torch.tensor(0.1)) if sets else None
        self.distance = nn.Parameter(torch.tensor(1.0)) if sets else None
        self.stride, self.missing = stride, outside - inside

    def forward(self, x):
        w = self.conv.weight
        if self.centre is None:
            bits, weight = Sign.apply(x - self.threshold), Sign.apply(w)
        else:
            sign = Sign.apply((x - self.threshold - self.centre) / self.distance)
            bits = sign * self.distance + self.centre
            mean, std = w.mean((1, 2, 3), True), w.std((1, 2, 3), correction=0, keepdim=True)
            weight = Sign.apply((w - mean) / std) * std + mean
        y = self.bn(F.conv2d(bits, weight, None, self.stride, 1))
        x = F.pad(x[:, :, :: self.stride, :: self.stride],
                  (0, 0, 0, 0, self.missing // 2, self.missing - self.missing // 2))  # fmt: skip
        y = y + x
        return self.act(y if self.after is None else self.after(y))


class Foreign(nn.Module):
    """uint8 (B, 1, 8, 8) -> logits; blocks of 16, 16, 32 and 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.PReLU()
        self.blocks = nn.Sequential(
            Block(16, 16, 1, False, False), Block(16, 32, 2, True, True),
            Block(32, 32, 1, True, False), Block(32, 32, 2, False, True),
        )  # fmt: skip
        self.bn2 = nn.BatchNorm1d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, pixels):
        x = (pixels.float() / 255 - MEAN[0]) / STD[0]
        x = self.blocks(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.bn2(x.mean((2, 3))))


def fit(model: nn.Module, pixels, labels, epochs: int, *, anneal: bool = False) -> None:
    """Train on uint8 pixels (N, H, W, C) and their labels. anneal : to a rate of zero."""
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    steps = epochs * -(-len(pixels) // 64)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 1 - step / steps if anneal else 1.0
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    target = torch.from_numpy(labels).long()
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[part]), target[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def trained(pixels, labels, epochs: int = 6) -> Foreign:
    """uint8 pixels (N, H, W, 1); some slopes end below zero, and some are put there."""
    torch.manual_seed(0)
    model = Foreign()
    with torch.no_grad():
        for block in model.blocks:
            block.act.weight[::4] = -0.2
            block.threshold.normal_(0, 0.1)
    fit(model, pixels, labels, epochs)
    return model.eval()
