"""One binary 3x3 convolution and all that the repair methods put around it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bnnhw.network.folded import Folded, Term, padded_taps
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NetworkSpec, NumberFormats
from bnnhw.nn.activations import Activation
from bnnhw.nn.binarizers import WeightBinarizer
from bnnhw.nn.features import FeatureBinarizer
from bnnhw.nn.folded import bits, finite, fold_norm
from bnnhw.nn.gates import Gate
from bnnhw.nn.kernels import binary_conv, fused, walks
from bnnhw.nn.quantisers import quantise_residual, rounding
from bnnhw.nn.shortcuts import AnyShortcut, Shortcut, shortcut
from bnnhw.nn.weights import latent

INITIAL_GAIN = 0.5  # of a convolution's batch norm: keeps early streams where gradients pass
SPATIAL_MAX = 255 / 64  # the device's greatest spatial factor


def _plain(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


class BinaryConvolution(nn.Module):
    """x (B, in_channels, height, width) -> (B, out_channels, out_height, out_width).

    The order is: batch norm, signs, convolution, spatial factors, normalisation, activation, gate,
    shortcut, activation. All but signs and convolution are there only where spec.repair asks for
    them. `weight` has a row per output channel, for each base or group of an ensemble.
    """

    def __init__(self, shape: Convolution, spec: NetworkSpec) -> None:
        super().__init__()
        repair, channels = shape.repair or spec.repair, shape.out_channels
        kind, _, count = repair.ensemble.partition("-")
        self.shape, self.repair = shape, repair
        self.pads_zero = repair.binary_sets == "adabin" and spec.adabin_padding == "zero"
        self.bases = int(count) if kind == "weights" else 1
        self.groups = int(count) if kind == "group" else 1
        self.blended = repair.features if kind == "features" else 1
        rows = channels * self.bases * self.groups
        self.binarizer = FeatureBinarizer(repair, shape.in_channels)
        self.weight_binarizer = WeightBinarizer(repair)
        self.weight = latent(repair, rows, shape.in_channels, 3, 3)
        self._make_norms(repair, channels * self.groups)
        self._make_factors(repair, rows)
        symmetric = repair.binary_sets == "symmetric"
        self.multiplies_last = self.norm is None and self.bases == 1 and symmetric
        self.activation: Activation | None = None
        self.gate: Gate | None = None
        self.shortcut: AnyShortcut | None = None
        if repair.activation != "none":
            self.activation = Activation(repair.activation, channels)
        if shape.shortcut and repair.squeeze_excitation == "se":
            self.gate = Gate(channels)
        if shape.shortcut:
            self.shortcut = shortcut(shape, repair)
        self.activates_last = shape.shortcut and repair.activation_position == "after-add"

    def _make_norms(self, repair: Repair, channels: int) -> None:
        self.norm: nn.BatchNorm2d | None = None
        self.norm_before: nn.BatchNorm2d | None = None
        if repair.feature_normalization == "bn-after":
            self.norm = nn.BatchNorm2d(channels)
            nn.init.constant_(self.norm.weight, INITIAL_GAIN)
        elif repair.feature_normalization == "bn-before":
            self.norm_before = nn.BatchNorm2d(self.shape.in_channels)
        elif repair.feature_normalization == "shift":
            self.shift = nn.Parameter(torch.zeros(self.shape.out_channels))

    def _make_factors(self, repair: Repair, rows: int) -> None:
        if repair.scaling in ("channel-learned", "spatial"):
            self.scale = nn.Parameter(torch.ones(rows))
        if repair.scaling == "spatial":
            self.spatial_rows = nn.Parameter(torch.ones(self.shape.out_height))
            self.spatial_columns = nn.Parameter(torch.ones(self.shape.out_width))
        if self.bases > 1:
            self.base_gain = nn.Parameter(torch.full((rows,), 1 / self.bases))
        if self.blended > 1:
            self.feature_gain = nn.Parameter(torch.full((self.blended,), 1 / self.blended))

    def forward(
        self, x: Tensor, stream: Tensor | None = None, formats: NumberFormats | None = None
    ) -> Tensor:
        """Returns the layer's output.

        stream : what goes through the shortcut; without it nothing is added.
        formats : of the residual stream that the result is; without them it is not rounded.
        """
        if self._is_one_function(x):
            return self._as_one(x, stream, formats)
        y = self._in_parts(x, self._added(stream))
        return quantise_residual(y, formats) if formats else y

    def _added(self, stream: Tensor | None) -> Tensor | None:
        """Returns what the shortcut brings."""
        if self.shortcut is None or stream is None:
            return None
        added: Tensor = self.shortcut(stream)
        return added

    def _as_one(self, x: Tensor, stream: Tensor | None, formats: NumberFormats | None) -> Tensor:
        around = None
        if isinstance(self.shortcut, Shortcut) and stream is x:
            around = self.shortcut.around
        with torch.set_grad_enabled(torch.is_grad_enabled() and around is None):
            added = self._added(stream)
        kind = fused.Kind(
            self.shape.stride, fused.TRIANGLE[self.binarizer.kind],
            rounding(formats) if formats else walks.AS_IT_IS, around,
        )  # fmt: skip
        weight, threshold = self.weight_binarizer(self.weight), self.binarizer.thresholds()[0]
        assert self.norm is not None
        return fused.layer(x, added, weight, threshold, self.norm, self.activation, kind)

    def _in_parts(self, x: Tensor, added: Tensor | None) -> Tensor:
        """Returns the output, not rounded. added : what the shortcut brings."""
        y, weight = self._sums(self._features(x))
        if self.norm is not None and self._in_one_walk(y):
            return walks.tail(y, added, self.norm, self.activation)
        y = self._normalised(y, weight)
        if self.activation is not None and not self.activates_last:
            y = self.activation(y)
        if self.gate is not None:
            y = self.gate(y)
        if added is not None:
            y = y + added
        return self.activation(y) if self.activation is not None and self.activates_last else y

    def _features(self, x: Tensor) -> list[Tensor]:
        """Returns the signs of each group, padded where padding is -1.

        The signs of several thresholds are blended to one map.
        """
        if self.norm_before is not None:
            rising = {"weight": self.norm_before.weight.abs()}  # no threshold may flip
            x = functional_call(self.norm_before, rising, x)
        features: list[Tensor] = self.binarizer(x)
        if self.pads_zero:  # the two values, so that a padded tap differs from their centre
            features = [bits + self._centre().to(bits.dtype) for bits in features]
        if self.repair.padding == "minus-one":
            features = [F.pad(bits, (1, 1, 1, 1), value=-1.0) for bits in features]
        if self.blended == 1:
            return features
        gains = self.feature_gain.to(x.dtype)
        blended = [bits * gain for bits, gain in zip(features, gains, strict=True)]
        return [reduce(torch.add, blended)]

    def _is_one_function(self, x: Tensor) -> bool:
        """Returns whether `fused` has all of this layer."""
        plain = self.repair.padding == "zero" and self.binarizer.kind in fused.TRIANGLE
        if not plain or self.norm is None or not self._is_binary() or not self._in_one_walk(x):
            return False
        return binary_conv.takes(x, len(self.weight), self.shape.stride)

    def _in_one_walk(self, y: Tensor) -> bool:
        """Returns whether batch norm, shortcut and activation are all that follows y."""
        usual = self.gate is None and self.groups == 1 and self.repair.scaling != "spatial"
        at_the_end = self.activates_last or self.shortcut is None or self.activation is None
        if self.norm is None:
            return False
        same = self.norm.training or not torch.is_grad_enabled()  # gradients are of a batch's mean
        return usual and at_the_end and same and walks.takes(y)

    def _sums(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the convolution, and the weights that made it."""
        weight = self.factored_weights()
        parts = zip(features, weight.chunk(self.groups), strict=True)
        maps = [self._convolved(bits, rows) for bits, rows in parts]
        return torch.cat(maps, 1) if self.groups > 1 else maps[0], weight

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """Returns the convolution of one group. weight : that of the group."""
        padded, stride = self.repair.padding == "minus-one", self.shape.stride
        if self._is_binary() and not padded and binary_conv.takes(x, len(weight), stride):
            return binary_conv.convolve(x, weight, stride)
        return F.conv2d(x, weight, None, stride, 0 if padded else 1)

    def _is_binary(self) -> bool:
        """Returns whether features and factored weights are +-1 and nothing else."""
        real = self.weight_binarizer.real and self.training
        scaled = self.repair.scaling != "none" and not self.multiplies_last
        blended = self.bases > 1 or self.blended > 1 or self.repair.binary_sets == "adabin"
        return not (real or scaled or blended)

    def _normalised(self, y: Tensor, weight: Tensor) -> Tensor:
        """Returns y after factors that come last, spatial ones and normalisation.

        weight : of the convolution.
        """
        gain = self._gain() if self.multiplies_last else None
        if gain is not None:
            y = y * gain.to(y.dtype)[:, None, None]
        if self.repair.scaling == "spatial":
            y = y * self.spatial().to(y.dtype)
        if self.norm is not None:
            y = self.norm(y)
        if self.groups > 1:
            y = reduce(torch.add, y.chunk(self.groups, 1))
        constant = self._constant(weight)
        return y if constant is None else y + constant.to(y.dtype)[:, None, None]

    def factored_weights(self) -> Tensor:
        """Returns binary weights times all factors of their channels, real (groups * O, I, 3, 3).

        Factors that come last are left out: an accumulator of 0 must stay exactly 0 where nothing
        is added before its sign is taken.
        """
        weight: Tensor = self.weight_binarizer(self.weight)
        gain = None if self.multiplies_last else self._gain()
        if gain is not None:
            weight = weight * _column(gain)
        if self.repair.binary_sets == "adabin":
            weight = weight + _column(self._shared_gain())
        return weight.unflatten(0, (self.bases, -1)).sum(0) if self.bases > 1 else weight

    def _gain(self) -> Tensor | None:
        """Returns the product of the factors of each row of `weight`, (rows,) or (1,).

        None stands for 1.
        """
        factors = self._factors()
        if self.repair.scaling == "channel-mean":
            factors.append(self.weight.abs().mean((1, 2, 3)))
        if self.bases > 1:
            factors.append(self.base_gain)
        if self.repair.binary_sets == "adabin":
            factors.append(self.weight.std((1, 2, 3), correction=0))
        return reduce(torch.mul, factors) if factors else None

    def _shared_gain(self) -> Tensor:
        """Returns adabin's factor of the sum of a window's signs, (O,): the scaled centre."""
        return reduce(torch.mul, self._factors(), self.weight.mean((1, 2, 3)))

    def _factors(self) -> list[Tensor]:
        """Returns the factors that do not depend on the weights."""
        factors: list[Tensor] = []
        if self.repair.scaling in ("channel-learned", "spatial"):
            factors.append(self.scale)
        if self.norm is None:
            factors.append(self.weight.new_full((1,), (9 * self.shape.in_channels) ** -0.5))
        if self.repair.binary_sets == "adabin":
            factors.append(self.binarizer.positive_distance())
        return factors

    def spatial(self) -> Tensor:
        """Returns factors (out_height, out_width), in [0, SPATIAL_MAX]."""
        return (self.spatial_rows[:, None] * self.spatial_columns).clamp(0, SPATIAL_MAX)

    def _constant(self, weight: Tensor) -> Tensor | None:
        """Returns what is added per channel at last, or None.

        Adabin's centre adds the same at every pixel, as padded taps are the centre too. Batch norm
        would take it away again.
        """
        if self.norm is not None:
            return None
        constant: Tensor | None = None
        if self.repair.feature_normalization == "shift":
            constant = self.shift
        if self.repair.binary_sets == "adabin" and not self.pads_zero:
            centred = self._centre() * weight.sum((1, 2, 3))
            constant = centred if constant is None else constant + centred
        return constant

    def _centre(self) -> Tensor:
        """Returns that of adabin's two values, in units of their distance from it."""
        return self.binarizer.centre / self.binarizer.positive_distance()

    @torch.no_grad()
    def folded(self) -> Folded:
        """Returns this layer in evaluation mode, in float64.

        Raises UserError for a value that is not finite.
        """
        name = self.shape.name
        for key, parameter in self.named_parameters():
            finite(f"{name}.{key}", parameter)
        slope, offset = self._after()
        border = None
        if self.pads_zero:
            centre, weight = float(self._centre()), _plain(self.factored_weights())
            offset = offset + slope * centre * weight.sum((1, 2, 3))
            border = -centre * slope * padded_taps(weight)
        return Folded(
            thresholds=self._folded_thresholds(),
            terms=tuple(self._terms(slope)),
            offset=offset,
            spatial=_plain(self.spatial()) if self.repair.scaling == "spatial" else None,
            activation=None if self.activation is None else self.activation.folded(),
            gate=None if self.gate is None else self.gate.folded(),
            shortcut=None if self.shortcut is None else self.shortcut.folded(f"{name}.shortcut"),
            border=border,
        )

    def _folded_thresholds(self) -> np.ndarray:
        levels: np.ndarray = _plain(self.binarizer.thresholds())
        if self.norm_before is None:
            return levels
        name = f"{self.shape.name}.norm_before"
        before = fold_norm(name, self.norm_before, rising=True)
        above = levels - before.offset
        flat = np.where(above > 0, np.inf, -np.inf)
        levels = np.divide(above, before.slope, out=flat, where=before.slope > 0)
        return levels

    def _after(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns a slope per channel of the convolution, and an offset per output channel."""
        channels = self.shape.out_channels
        if self.norm is not None:
            affine = fold_norm(f"{self.shape.name}.norm", self.norm)
            return affine.slope, affine.offset.reshape(self.groups, channels).sum(0)
        constant = self._constant(self.factored_weights())
        offset = np.zeros(channels) if constant is None else _plain(constant)
        return np.ones(channels * self.groups), offset

    def _terms(self, slope: np.ndarray) -> Iterator[Term]:
        """Yields the terms. slope : of what follows, per channel of the convolution."""
        weights = bits(self.weight_binarizer(self.weight))
        gain, channels = self._gain(), self.shape.out_channels
        gains = np.tile(slope, self.bases) * (1.0 if gain is None else _plain(gain))
        for k in range(self.bases * self.groups):
            rows = slice(k * channels, (k + 1) * channels)
            feature = k if self.groups > 1 else 0
            for n in range(self.blended):
                share = float(self.feature_gain[n]) if self.blended > 1 else 1.0
                yield Term(weights[rows], gains[rows] * share, max(feature, n))
        if self.repair.binary_sets == "adabin":
            yield Term(np.ones_like(weights[:1]), slope * _plain(self._shared_gain()), 0)
