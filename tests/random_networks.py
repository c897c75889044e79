"""Integer networks of random arrays for any spec: every part the methods ask for, none trained."""

from __future__ import annotations

import numpy as np

from bnnhw.network.integer import (
    IntegerActivation,
    IntegerConvolution,
    IntegerGate,
    IntegerHead,
    IntegerNetwork,
    IntegerShortcut,
    IntegerStem,
    IntegerTerm,
    Requantiser,
    structure,
)
from bnnhw.network.operations import INT16
from bnnhw.network.spec import Convolution, NetworkSpec, thermometer_levels


class Random:
    """Arrays that keep streams in range without vanishing, but for `extremes`, from one seed."""

    def __init__(
        self, spec: NetworkSpec, seed: int, loud: float, extremes: float, levels: int,
        two_sided: float, exponents: bool,
    ) -> None:  # fmt: skip
        self.spec, self.rng = spec, np.random.default_rng(seed)
        self.extremes, self.levels, self.two_sided = extremes, levels, two_sided
        self.exponents = exponents
        self.step = loud * 2.0**spec.formats.residual_fraction
        self.wide = self.step * 2.0**spec.formats.guard

    def signs(self, *shape: int) -> np.ndarray:
        return self.rng.choice(np.array([-1, 1], np.int8), shape)

    def bytes(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-127, 128, shape).astype(np.int8)

    def normal(self, sigma: float, *shape: int) -> np.ndarray:
        values = np.round(self.rng.normal(0, sigma, shape)).clip(*INT16)
        if self.extremes:
            chosen = self.rng.random(shape) < self.extremes
            values[chosen] = self.rng.choice([*INT16, -1, 0, 1], np.count_nonzero(chosen))
        return values.astype(np.int32)

    def scale(self, half: float, channels: int) -> np.ndarray:
        """So that halves of this size become numbers of about one real unit."""
        return self.normal(self.step * 2.0**self.spec.formats.scale_fraction / half, channels)

    def requantiser(self, half: float, channels: int) -> Requantiser:
        features = self.spec.repair.features
        low = -(2 ** (self.spec.formats.residual_width - 1))
        threshold = self.normal(self.step / 3, features, channels).clip(low, -low)
        threshold.flat[:2] = low, -low  # always, never
        bias = self.normal(self.wide / 2, channels)
        threshold = threshold[0] if features == 1 else threshold
        scale, exponent = self.scale(half, channels), self.exponent(channels)
        return Requantiser(scale, bias, threshold, exponent)

    def exponent(self, channels: int) -> np.ndarray | None:
        """A few of either sign."""
        if not self.exponents:
            return None
        some = self.rng.random(channels) < 0.4
        return np.where(some, self.rng.integers(-8, 7, channels), 0).astype(np.int32)

    def activation(self, bias: np.ndarray) -> IntegerActivation:
        """After this bias: with its shift it stays within 16 bits."""
        channels = len(bias)
        formats = self.spec.formats
        one = 2 ** (formats.scale_fraction - formats.guard)
        slopes = self.rng.integers(-one, 2 * one, (2, channels)).astype(np.int32)
        slopes.flat[:3] = 0, 32767, -32768
        shifts = self.normal(self.wide / 2, 2, channels)
        shift_in = (bias + shifts[0]).clip(*INT16) - bias
        return IntegerActivation(shift_in.clip(*INT16), *slopes, shifts[1])

    def gate(self, shape: Convolution) -> IntegerGate:
        channels, hidden = shape.out_channels, max(2, shape.out_channels // 4)
        formats, pixels = self.spec.formats, shape.out_height * shape.out_width
        one = 2.0 ** (formats.scale_fraction - formats.guard)
        coarse = 2.0 ** max(0, formats.residual_width + formats.guard - 10)
        half1 = self.wide / 2 / coarse * pixels / 4 * 73 * channels**0.5 / 256
        half2 = 2.0**12 / coarse * 73 * hidden**0.5 / 256
        return IntegerGate(
            self.bytes(hidden, channels), self.normal(2.0**12 / half1 * one, hidden),
            (self.normal(2.0**12, hidden) + 2**12).clip(*INT16), self.bytes(channels, hidden),
            self.normal(one / 3 / half2 * one, channels),
            (self.normal(one / 3, channels) + round(one / 2)).clip(*INT16),
        )  # fmt: skip

    def shortcut(self, shape: Convolution) -> IntegerShortcut:
        out, channels = shape.out_channels, shape.shortcut_channels
        binary = (shape.repair or self.spec.repair).downsample == "conv1x1-binary"
        weights = self.signs(out, channels) if binary else self.bytes(out, channels)
        half = channels**0.5 / 2 if binary else 64 * self.step * channels**0.5 / 2**6
        shift = 1 if binary else 10
        return IntegerShortcut(
            weights, shift, self.scale(half, out), self.normal(self.wide / 4, out), binary,
            self.exponent(out),
        )  # fmt: skip

    def stem(self) -> IntegerStem:
        out, channels = self.spec.stem_channels, self.spec.input[2]
        if self.spec.repair.stem == "8-bit":
            shift = 9
            half = 75 * 73 * (9 * channels) ** 0.5 / 2**shift
            weights, part = self.bytes(out, 3, 3, channels), self.requantiser(half, out)
            return IntegerStem(weights, shift, part, None, self.stem_activation(part.bias))
        levels = np.array(self.spec.levels or thermometer_levels(self.levels), np.uint8)
        channels *= len(levels)
        weights = self.signs(out, 3, 3, channels)
        part = self.requantiser((9 * channels) ** 0.5, out)
        return IntegerStem(weights, 1, part, levels, self.stem_activation(part.bias))

    def stem_activation(self, bias: np.ndarray) -> IntegerActivation | None:
        return None if self.spec.stem_activation == "none" else self.activation(bias)

    def convolution(self, shape: Convolution) -> IntegerConvolution:
        parts, out = structure(shape, self.spec.repair), shape.out_channels
        taps = (3, 3, shape.in_channels)
        weights = self.signs(out, *taps)
        fan_in = 9 * shape.in_channels
        active = (shape.repair or self.spec.repair).activation != "none"
        two_sided = self.two_sided and active and self.rng.random() < self.two_sided
        if not parts.requantised and not two_sided:
            threshold = self.normal(fan_in**0.5, out).clip(-fan_in, fan_in + 1)
            return IntegerConvolution(shape, weights, None, threshold)
        half = fan_in**0.5 * len(parts.features)
        further = []
        for at, feature in enumerate(parts.features[1:], 2):
            shared = parts.window_sum and at == len(parts.features)
            own = weights if parts.same_weights else self.signs(1 if shared else out, *taps)
            further.append(IntegerTerm(own, self.scale(half, out), feature))
        part = self.requantiser(half, out)
        size = (shape.out_height, shape.out_width)
        spatial = self.rng.integers(0, 256, size).astype(np.uint8) if parts.spatial else None
        return IntegerConvolution(
            shape, weights, part, None, tuple(further), spatial,
            self.activation(part.bias) if parts.before or not parts.requantised else None,
            self.gate(shape) if parts.gate else None,
            self.shortcut(shape) if parts.shortcut else None,
            self.activation(part.bias) if parts.after else None,
            self.border(out)
            if parts.window_sum and self.spec.adabin_padding == "zero"
            else None,
        )  # fmt: skip

    def border(self, channels: int) -> np.ndarray:
        border = self.normal(self.wide / 2, 3, 3, channels)
        border[1, 1] = 0
        return border

    def head(self) -> IntegerHead:
        classes = self.spec.classes
        return IntegerHead(self.bytes(classes, self.spec.widths[-1]), self.bytes(classes), 5)


def random_network(
    spec: NetworkSpec,
    seed: int = 0,
    loud: float = 1.0,
    extremes: float = 0.0,
    levels: int = 6,
    two_sided: float = 0.0,
    exponents: bool = False,
) -> IntegerNetwork:
    """A network of the spec whose every part is random; a `loud` one saturates everywhere.

    extremes : how often a constant is the least or the greatest there is, or about zero.
    levels : of a thermometer stem. two_sided : how often an activation before bits rises and falls,
        so that there are numbers and no thresholds of sums. exponents : whether channels have any.
    """
    random = Random(spec, seed, loud, extremes, levels, two_sided, exponents)
    convolutions = tuple(random.convolution(shape) for shape in spec.convolutions())
    return IntegerNetwork(spec, random.stem(), convolutions, random.head())
