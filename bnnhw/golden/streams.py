"""Finds what range of the residual stream sample images need, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnnhw.golden.execute import BATCH, UNSATURATED, checked, forward
from bnnhw.network.integer import IntegerNetwork, saturation

STATED = 0.001  # share of saturated values above which a layer is said to need another format


@dataclass(frozen=True)
class Stream:
    """The numbers that continue as the residual stream after one layer, before they saturate.

    layer, stage : of the network; the stem is of stage 0. fraction : bits after the point.
    low, high : the least and greatest, in real units. saturated : the share of those that do.
    holds : the greatest fraction with which none would; it may be negative, where the stream is too
        narrow for any.
    """

    layer: str
    stage: int
    fraction: int
    low: float
    high: float
    saturated: float
    holds: int

    def __str__(self) -> str:
        """Returns one sentence that names the layer, the share and what would help."""
        text = f"{self.layer} (stage {self.stage}): {100 * self.saturated:.2g} % of values saturate"
        if self.holds < 0:
            return f"{text}; a greater residual_width would hold them"
        return f"{text}; residual_fraction {self.holds} would hold them"


@torch.inference_mode()
def streams(network: IntegerNetwork, images: np.ndarray) -> tuple[Stream, ...]:
    """Returns a Stream for the stem and each layer with a shortcut, over uint8 (N, H, W, C)."""
    low, high = saturation(network.spec.formats.residual_width)
    places = {"stem": (0, network.spec.formats.fraction(0))}
    places |= {s.name: (s.stage, s.fraction) for s in network.spec.convolutions() if s.shortcut}
    found = {name: [0, 0, 0, 0] for name in places}  # least, greatest, saturated, all

    def keep(name: str, values: Tensor) -> None:
        layer = name.removesuffix(UNSATURATED)
        if layer == name or layer not in found:
            return
        count = found[layer]
        count[0] = min(count[0], int(values.min()))
        count[1] = max(count[1], int(values.max()))
        count[2] += int(((values < low) | (values > high)).sum())
        count[3] += values.numel()

    pixels = checked(network, images)
    for start in range(0, len(pixels), BATCH):
        forward(network, pixels[start : start + BATCH].permute(0, 3, 1, 2), keep)
    result = []
    for layer, (stage, fraction) in places.items():
        least, greatest, saturated, count = found[layer]
        holds = fraction
        while least < low << (fraction - holds) or greatest > (high + 1 << (fraction - holds)) - 1:
            holds -= 1
        step = 2.0**-fraction
        share = saturated / count
        result.append(Stream(layer, stage, fraction, least * step, greatest * step, share, holds))
    return tuple(result)


def advice(found: tuple[Stream, ...], stated: float = STATED) -> tuple[str, ...]:
    """Returns a sentence for each layer of which more than this share saturates."""
    return tuple(str(stream) for stream in found if stream.saturated > stated)
