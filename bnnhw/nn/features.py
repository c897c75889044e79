"""Real features -> bits: one sign each, or one for each of several thresholds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnnhw.network.repair import Repair
from bnnhw.nn.binarizers import SurrogateSign
from bnnhw.nn.kernels import walks

LEAST_DISTANCE = 1e-3  # of adabin's two values from their centre


class FeatureBinarizer(nn.Module):
    """x (B, C, H, W) -> N times +-1 (B, C, H, W), the nth of them sign(x_c - threshold[n, c]).

    threshold : (C,), or (N, C) for the N of an ensemble, which start 1 apart around 0; only
        where they are learned.
    centre, distance : of adabin (2208.08084), one of each per layer: features are
        centre + distance * sign(x - centre). What comes out here is the sign.
    """

    def __init__(self, repair: Repair, channels: int) -> None:
        super().__init__()
        self.channels, self.count = channels, repair.features
        self.kind = repair.feature_binarizer
        self.sign = SurrogateSign(self.kind)
        self.learned = self.kind == "rsign" or self.count > 1
        self.adaptive = repair.binary_sets == "adabin"
        if self.learned:
            levels = torch.arange(self.count) - (self.count - 1) / 2
            start = levels.repeat_interleave(channels).reshape(self.count, channels)
            self.threshold = nn.Parameter(start if self.count > 1 else start[0])
        if self.adaptive:
            self.centre, self.distance = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))

    def thresholds(self) -> Tensor:
        """Returns all thresholds, (N, C): x - threshold >= 0 makes +1."""
        device = self.sign.sharpness.device
        threshold = self.threshold if self.learned else torch.zeros(self.channels, device=device)
        if self.adaptive:
            threshold = threshold + self.centre
        return threshold.reshape(self.count, self.channels)

    def positive_distance(self) -> Tensor:
        """Returns adabin's distance, which must not change its sign."""
        return self.distance.abs().clamp(min=LEAST_DISTANCE)

    def forward(self, x: Tensor) -> list[Tensor]:
        if not self.learned and not self.adaptive:
            return [self.sign(x)]
        if self.kind == "rsign" and self.count == 1 and not self.adaptive and walks.takes(x):
            return [walks.above(x, self.threshold)]
        levels = self.thresholds().to(x.dtype)[:, :, None, None]
        if self.adaptive:
            return [self.sign((x - level) / self.positive_distance()) for level in levels]
        return [self.sign(x - level) for level in levels]
