"""What is added to a convolution's output: the stream, in another shape where that changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.network.folded import FoldedShortcut
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution
from bnnhw.nn.binarizers import SurrogateSign, WeightBinarizer
from bnnhw.nn.folded import bits, fold_norm
from bnnhw.nn.quantisers import int8_scale, quantise_weight
from bnnhw.nn.weights import latent


def pad_shortcut(stream: Tensor, shape: Convolution) -> Tensor:
    """Returns the subsampled stream with zero channels around it, as `Convolution` defines it."""
    step, front = shape.shortcut_stride, shape.shortcut_offset
    if step > 1:
        stream = stream[:, :, ::step, ::step]
    back = shape.out_channels - shape.shortcut_channels - front
    return F.pad(stream, (0, 0, 0, 0, front, back)) if front or back else stream


def average_shortcut(stream: Tensor, shape: Convolution) -> Tensor:
    """Returns 2x2 means; out channel c is channel c % shortcut_channels (ReActNet, 2003.03488).

    An odd map's last row and column are repeated first.
    """
    rows, columns = stream.shape[2] % 2, stream.shape[3] % 2
    even = F.pad(stream, (0, columns, 0, rows), mode="replicate") if rows or columns else stream
    means = F.avg_pool2d(even, 2).to(stream.dtype)
    copies = -(-shape.out_channels // shape.shortcut_channels)
    return torch.cat([means] * copies, 1)[:, : shape.out_channels]


class Shortcut(nn.Module):
    """A shortcut without weights: the stream as it is, padded or averaged."""

    def __init__(self, shape: Convolution, kind: str) -> None:
        super().__init__()
        self.shape = shape
        self.averages = kind == "avgpool-duplicate" and shape.shortcut_stride == 2

    @property
    def around(self) -> int | None:
        """The channel on which the stream's first channel lands as it is; None for averages."""
        return None if self.averages else self.shape.shortcut_offset

    def forward(self, stream: Tensor) -> Tensor:
        if self.averages:
            return average_shortcut(stream, self.shape)
        return pad_shortcut(stream, self.shape)

    def folded(self, name: str) -> None:
        """Returns None: the spec says all of it."""


class BinaryShortcut(nn.Module):
    """Signs of every other pixel, a binary 1x1 convolution, batch norm (1808.00278).

    The signs are the stream's own (0 is +1), whatever the thresholds of the convolution are.
    """

    def __init__(self, shape: Convolution, repair: Repair) -> None:
        super().__init__()
        self.stride = shape.shortcut_stride
        self.binarizer = SurrogateSign(repair.feature_binarizer)
        self.weight_binarizer = WeightBinarizer(repair)
        self.weight = latent(repair, shape.out_channels, shape.shortcut_channels, 1, 1)
        self.norm = nn.BatchNorm2d(shape.out_channels)

    def forward(self, stream: Tensor) -> Tensor:
        features = self.binarizer(stream[:, :, :: self.stride, :: self.stride])
        normed: Tensor = self.norm(F.conv2d(features, self.weight_binarizer(self.weight)))
        return normed

    @torch.no_grad()
    def folded(self, name: str) -> FoldedShortcut:
        weights = bits(self.weight_binarizer(self.weight))[:, 0, 0]
        affine = fold_norm(f"{name}.norm", self.norm)
        return FoldedShortcut(weights, affine.slope, affine.offset, binary=True)


class ByteShortcut(nn.Module):
    """An 8-bit 1x1 convolution of every other pixel and batch norm (option B of 1512.03385)."""

    def __init__(self, shape: Convolution) -> None:
        super().__init__()
        self.stride = shape.shortcut_stride
        self.weight = nn.Parameter(torch.empty(shape.out_channels, shape.shortcut_channels, 1, 1))
        nn.init.kaiming_normal_(self.weight)
        self.norm = nn.BatchNorm2d(shape.out_channels)

    def forward(self, stream: Tensor) -> Tensor:
        kept = stream[:, :, :: self.stride, :: self.stride]
        sums = F.conv2d(kept, quantise_weight(self.weight, per_channel=True))
        normed: Tensor = self.norm(sums)
        return normed

    @torch.no_grad()
    def folded(self, name: str) -> FoldedShortcut:
        unit = int8_scale(self.weight, per_channel=True)
        weights = bits(torch.round(self.weight / unit))[:, 0, 0]
        affine = fold_norm(f"{name}.norm", self.norm, unit.double().flatten().numpy())
        return FoldedShortcut(weights, affine.slope, affine.offset, binary=False)


AnyShortcut = Shortcut | BinaryShortcut | ByteShortcut


def shortcut(shape: Convolution, repair: Repair) -> AnyShortcut:
    """Returns the shortcut of this convolution: stream -> what is added to the output."""
    if shape.shortcut_stride == 2 and repair.downsample == "conv1x1-binary":
        return BinaryShortcut(shape, repair)
    if shape.shortcut_stride == 2 and repair.downsample == "conv1x1-8bit":
        return ByteShortcut(shape)
    return Shortcut(shape, repair.downsample)
