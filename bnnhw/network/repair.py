"""The repair methods of binary networks: what can be chosen, its source and what it costs.

The taxonomy is de Putter and Corporaal's (arXiv:2206.12322).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bnnhw.errors import UserError

TRAINING, THRESHOLDS, TOPOLOGY = COSTS = ("training only", "thresholds", "topology")


@dataclass(frozen=True)
class Category:
    """One field of Repair.

    values : what it may be, the baseline first; value -> what it means and where it comes from.
    cost : TRAINING (the device's logic does not change) or TOPOLOGY.
    compared : values of a TRAINING category that nevertheless cost THRESHOLDS: bits of the stream
        are compared with a number for each channel in place of zero, which takes a memory.
    """

    name: str
    cost: str
    values: dict[Any, str]
    compared: tuple[Any, ...] = ()

    def cost_of(self, value: Any) -> str:
        return THRESHOLDS if value in self.compared else self.cost


CATEGORIES = (
    Category("feature_binarizer", TRAINING, {
        "ste": "gradient of sign(x): 1 where |x| <= 1 (1602.02830)",
        "approxsign": "gradient 2 - 2|x| where |x| < 1 (Bi-Real Net, 1808.00278)",
        "ede": "gradient k t (1 - tanh(t x)^2), t from 0.01 to 10 (IR-Net, 1909.10788)",
        "swishsign": "gradient of SignSwish, beta 5 (BNN+, 1812.11800)",
        "rsign": "sign(x - t_c), t learned per channel (ReActNet, 2003.03488)",
    }, compared=("rsign",)),
    Category("weight_binarizer", TRAINING, {
        "ste": "gradient of sign(w): 1 (1602.02830)",
        "ede": "gradient k t (1 - tanh(t w)^2), t from 0.01 to 10 (IR-Net, 1909.10788)",
        "recu": "weights clipped to their tau and 1 - tau quantiles (ReCU, 2103.12369)",
    }),
    Category("feature_normalization", TRAINING, {
        "bn-after": "batch norm after each convolution (1502.03167)",
        "bn-before": "batch norm before each binarizer (1502.03167)",
        "shift": "a learned shift per channel after each convolution, nothing else",
        "none": "a convolution's output over the root of its fan-in",
    }, compared=("bn-before",)),
    Category("weight_normalization", TRAINING, {
        "none": "latent weights as they are",
        "libra": "zero mean, unit variance before sign (IR-Net, 1909.10788)",
    }),
    Category("teacher_student", TRAINING, {
        "none": "labels only",
        "logits": "divergence from a float teacher's logits (1503.02531)",
        "attention": "the teacher's attention map after each stage (2003.11535)",
    }),
    Category("regularization", TRAINING, {
        "none": "no term for the latent weights",
        "l2": "their squares",
        "r1": "the distance of |w| from a learned scale (BNN+, 1812.11800)",
        "r2": "its square (BNN+, 1812.11800)",
        "kurtosis": "the square of their kurtosis less 1.8, that of even spread (2204.02004)",
    }),
    Category("two_stage", TRAINING, {
        "none": "weights and features binary from the start",
        "features-first": "real weights for the first half of the schedule (2003.11535)",
    }),
    Category("optimizer", TRAINING, {
        "adam": "Adam (1412.6980)",
        "sgd": "momentum 0.9 and weight decay",
        "bop": "flips binary weights, no latent ones; Adam for the rest (1906.02107)",
    }),
    Category("binary_sets", TOPOLOGY, {
        "symmetric": "{-1, +1}",
        "adabin": "learned centre and distance of weights and features (AdaBin, 2208.08084)",
    }),
    Category("scaling", TOPOLOGY, {
        "none": "no factor beside the normalization's",
        "channel-mean": "mean |w| per channel (XNOR-Net, 1603.05279)",
        "channel-learned": "a learned factor per channel (XNOR-Net++, 1909.13863)",
        "spatial": "learned per channel, row and column (XNOR-Net++, 1909.13863)",
    }),
    Category("ensemble", TOPOLOGY, {
        "none": "one binary convolution",
        "weights-2": "two binary bases of the weights (ABC-Net, 1711.11294)",
        "weights-3": "three binary bases of the weights (ABC-Net, 1711.11294)",
        "features-2": "two thresholds per feature (ABC-Net, 1711.11294)",
        "features-3": "three thresholds per feature (ABC-Net, 1711.11294)",
        "group-2": "two branches of own thresholds, weights, norm (Group-Net, 1811.10413)",
    }),
    Category("activation", TOPOLOGY, {
        "none": "no activation but sign",
        "prelu": "a learned slope per channel below zero (1502.01852)",
        "rprelu": "shift, PReLU, shift (ReActNet, 2003.03488)",
        "maxout": "a learned slope per channel on each side of zero (AdaBin, 2208.08084)",
    }),
    Category("activation_position", TOPOLOGY, {
        "after-add": "on the residual stream (ReActNet, AdaBin)",
        "before-add": "on the convolution's output",
    }),
    Category("padding", TOPOLOGY, {
        "zero": "padded taps add nothing",
        "minus-one": "padded features are -1",
    }),
    Category("double_residual", TOPOLOGY, {
        False: "a shortcut round every two convolutions (1512.03385)",
        True: "a shortcut round every convolution (Bi-Real Net, 1808.00278)",
    }),
    Category("squeeze_excitation", TOPOLOGY, {
        "none": "no gates",
        "se": "a gate per channel from the map's means (1709.01507, 2003.11535)",
    }),
    Category("downsample", TOPOLOGY, {
        "pad": "every other pixel, zero channels around (option A of 1512.03385)",
        "avgpool-duplicate": "2x2 means, channels repeated (ReActNet, 2003.03488)",
        "conv1x1-binary": "binary 1x1 convolution of stride 2 and batch norm (1808.00278)",
        "conv1x1-8bit": "8-bit 1x1 convolution of stride 2 and batch norm (option B of 1512.03385)",
    }),
    Category("stem", TOPOLOGY, {
        "8-bit": "8-bit weights and pixels",
        "thermometer": "32 thresholds per pixel and colour, binary weights (FracBNN, 2012.12206)",
    }),
)  # fmt: skip


@dataclass(frozen=True)
class Repair:
    """The repair methods of one network. `CATEGORIES` says what each value means.

    The default is the network that this project builds. The study's baseline differs from it in
    `double_residual` alone.
    """

    feature_binarizer: str = "ste"
    double_residual: bool = True
    padding: str = "zero"
    downsample: str = "pad"
    weight_binarizer: str = "ste"
    feature_normalization: str = "bn-after"
    weight_normalization: str = "none"
    teacher_student: str = "none"
    regularization: str = "none"
    two_stage: str = "none"
    optimizer: str = "adam"
    binary_sets: str = "symmetric"
    scaling: str = "none"
    ensemble: str = "none"
    activation: str = "none"
    activation_position: str = "after-add"
    squeeze_excitation: str = "none"
    stem: str = "8-bit"

    def __post_init__(self) -> None:
        for category in CATEGORIES:
            _choose(category.name, getattr(self, category.name), tuple(category.values))
        for holds, reason in ILLEGAL:
            if holds(self):
                raise UserError(f"repair: {reason}")

    @property
    def features(self) -> int:
        """How many bits are made of each feature: the thresholds of an ensemble or a group."""
        kind, _, count = self.ensemble.partition("-")
        return int(count) if kind in ("features", "group") else 1

    def changes(self) -> dict[str, Any]:
        """Returns the settings that differ from the study's baseline, by name."""
        mine, baseline = asdict(self), asdict(BASELINE)
        return {name: value for name, value in mine.items() if value != baseline[name]}


ILLEGAL: tuple[tuple[Callable[[Repair], bool], str], ...] = (
    (
        lambda r: r.optimizer == "bop" and r.weight_binarizer != "ste",
        "optimizer=bop has no latent weights, so weight_binarizer must be ste",
    ),
    (
        lambda r: r.optimizer == "bop" and r.weight_normalization != "none",
        "optimizer=bop has no latent weights, so weight_normalization must be none",
    ),
    (
        lambda r: r.optimizer == "bop" and r.regularization != "none",
        "optimizer=bop has no latent weights, so regularization must be none",
    ),
    (
        lambda r: r.optimizer == "bop" and r.two_stage != "none",
        "optimizer=bop has no real weights for two_stage=features-first",
    ),
    (
        lambda r: r.optimizer == "bop" and r.scaling == "channel-mean",
        "optimizer=bop has no latent weights whose mean scaling=channel-mean could take",
    ),
    (
        lambda r: r.optimizer == "bop" and r.binary_sets == "adabin",
        "optimizer=bop has no latent weights whose spread binary_sets=adabin could take",
    ),
    (
        lambda r: r.binary_sets == "adabin" and r.ensemble != "none",
        "binary_sets=adabin has one pair of values, so ensemble must be none",
    ),
    (
        lambda r: r.binary_sets == "adabin" and r.weight_normalization != "none",
        "binary_sets=adabin normalizes the weights itself, so weight_normalization must be none",
    ),
    (
        lambda r: r.binary_sets == "adabin" and r.padding == "minus-one",
        "binary_sets=adabin pads with the set's centre, so padding must be zero",
    ),
    (
        lambda r: r.binary_sets == "adabin" and r.scaling == "channel-mean",
        "binary_sets=adabin has its own distance per channel, so scaling must not be channel-mean",
    ),
)


def _choose(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if type(value) not in map(type, allowed) or value not in allowed:
        raise UserError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}")


BASELINE = Repair(double_residual=False)
