"""Binary residual networks of Brevitas's and PyTorch's layers, as someone else might train them."""

from __future__ import annotations

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from brevitas.quant import (
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
)
from torch import Tensor, nn

BYTE = 78
MEAN, STD = (BYTE / 255,), (0.377,)  # so that a padded pixel, 0, is a whole byte


def normalised(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> what the networks take, (B, C, H, W)."""
    return ((pixels.float() / 255 - MEAN[0]) / STD[0]).permute(0, 3, 1, 2)


class Slopes(nn.Module):
    """An activation: "prelu", "relu", "leaky", "where", or of its own shifts, "rprelu"."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.prelu = nn.PReLU(channels)
        self.shifts = nn.Parameter(torch.zeros(2, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "prelu":
            return self.prelu(x)
        if self.kind == "rprelu":
            return self.prelu(x + self.shifts[0]) + self.shifts[1]
        if self.kind == "where":
            return torch.where(x > 0, x, x * self.prelu.weight[:, None, None])
        return {"relu": F.relu, "leaky": F.leaky_relu, "none": lambda y: y}[self.kind](x)


class Bits(nn.Module):
    """A binarizer: Brevitas's, or one written with PyTorch's own operations."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.brevitas = qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
        self.level = nn.Parameter(torch.zeros(channels, 1, 1))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "below":
            return torch.where(x < self.level, 1.0, -1.0)
        if self.kind == "zeros":
            return (x >= self.level).float()
        if self.kind == "sets":
            return torch.where(x >= self.level, 1.3, -0.7)
        if self.kind == "minus":
            return F.pad(self.brevitas(x - self.level), (1, 1, 1, 1), value=-1.0)
        if self.kind == "norm":
            return self.brevitas(self.norm(x))
        if self.kind == "clip":
            return self.brevitas(F.hardtanh(x))
        return self.brevitas(x)


class Sets(nn.Module):
    """A 3x3 convolution whose weights have two values by output, about a centre as AdaBin's."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside, 3, 3) + 0.1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        mean, std = w.mean((1, 2, 3), True), w.std((1, 2, 3), correction=0, keepdim=True)
        weight = torch.where(w >= mean, 1.0, -1.0) * std + mean
        return F.conv2d(x, weight, None, self.stride, 1)


class Shortcut(nn.Module):
    """What is added where the map halves: one of five ways."""

    def __init__(self, kind: str, inside: int, outside: int) -> None:
        super().__init__()
        self.kind, self.missing = kind, outside - inside
        self.sign = qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
        quant = Int8WeightPerTensorFloat
        if kind == "conv1":
            quant = SignedBinaryWeightPerTensorConst
        self.conv = qnn.QuantConv2d(inside, outside, 1, 2, bias=False, weight_quant=quant)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "conv8":
            return self.norm(self.conv(x))
        if self.kind == "conv1":
            return self.norm(self.conv(self.sign(x)))
        if self.kind == "average":
            x = F.avg_pool2d(x, 2)
            return torch.cat([x, x], 1)
        half = 0 if self.kind == "behind" else self.missing // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.missing - half))


class Block(nn.Module):
    """act(norm(binary convolution) + shortcut), or what `before`, `first` and `norm` make of it.

    before : whether the activation lies before the addition. first : whether a convolution of no
    shortcut lies before. norm : whether the sum is normalised. sets : whether weights have a
    centre.
    """

    def __init__(
        self, inside: int, outside: int, stride: int, act: str = "prelu", bits: str = "brevitas",
        shortcut: str = "pad", before: bool = False, first: bool = False, norm: bool = False,
        sets: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()

        def conv(channels: int, stride: int) -> nn.Module:
            if sets:
                return Sets(channels, outside, stride)
            return qnn.QuantConv2d(
                channels, outside, 3, stride, 0 if bits == "minus" else 1, bias=False,
                weight_quant=SignedBinaryWeightPerTensorConst,
            )  # fmt: skip

        self.first = None
        if first:
            self.first = nn.Sequential(
                Bits(bits, inside), conv(inside, stride), nn.BatchNorm2d(outside),
                Slopes(act, outside),
            )  # fmt: skip
            self.sign, self.conv = Bits(bits, outside), conv(outside, 1)
        else:
            self.sign, self.conv = Bits(bits, inside), conv(inside, stride)
        self.bn, self.act = nn.BatchNorm2d(outside), Slopes(act, outside)
        self.norm = nn.BatchNorm2d(outside) if norm else nn.Identity()
        moves = stride > 1 or outside > inside
        self.shortcut = Shortcut(shortcut, inside, outside) if moves else nn.Identity()
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.first is None else self.first(x)
        y = self.bn(self.conv(self.sign(y)))
        if self.before:
            return self.act(y) + self.shortcut(x)
        return self.act(self.norm(y + self.shortcut(x)))


class Foreign(nn.Module):
    """Normalised float (B, C, 8, 8) -> logits; blocks of 16, 32 and 32 channels of some kind."""

    def __init__(self, colours: int = 1, **kind) -> None:
        super().__init__()
        quant = Int8WeightPerTensorFloat
        self.conv = qnn.QuantConv2d(colours, 16, 3, 1, 1, bias=False, weight_quant=quant)
        self.bn = nn.BatchNorm2d(16)
        self.act = nn.PReLU(16)
        self.blocks = nn.Sequential(
            Block(16, 16, 1, **kind), Block(16, 32, 2, **kind), Block(32, 32, 1, **kind)
        )
        self.fc = qnn.QuantLinear(32, 10, bias=True, weight_quant=quant)

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(self.act(self.bn(self.conv(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class Headed(nn.Module):
    """The same with another head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.net = kind, random(4)
        self.norm, self.conv = nn.BatchNorm1d(32), nn.Conv2d(32, 10, 1)
        nn.init.normal_(self.norm.running_mean)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y, fc = self.net.features(x), self.net.fc
        means = F.adaptive_avg_pool2d(y, 1)
        match self.kind:
            case "view":
                return fc(means.view(y.size(0), -1))
            case "flatten":
                return fc(torch.flatten(F.avg_pool2d(y, 4), 1))
            case "norm":
                return fc(self.norm(y.mean((2, 3))))
            case "sum":
                return 3 * fc(y.sum((2, 3))) - 1
            case "matmul":
                return means.flatten(1) @ torch.round(20 * self.conv.weight[:, :, 0, 0].T)
            case "conv before":
                return F.adaptive_avg_pool2d(self.conv(y), 1).flatten(1)
            case "softmax":
                return F.softmax(fc(means.flatten(1)), 1)
        return self.conv(means).flatten(1)


@torch.no_grad()
def random(seed: int, **kind) -> Foreign:
    """A network whose norms, slopes and levels are random, of either sign."""
    torch.manual_seed(seed)
    model = Foreign(**kind)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            part.weight.normal_(0, 1)
            part.bias.normal_(0, 0.5)
        elif isinstance(part, nn.PReLU):
            part.weight.normal_(0, 0.5)
        elif isinstance(part, Slopes):
            part.shifts.normal_(0, 0.3)
        elif isinstance(part, Bits):
            part.level.normal_(0, 0.2)
    return model.eval()
