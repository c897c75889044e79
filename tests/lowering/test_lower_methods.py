"""Every method's integers against the float layers they come from, one layer at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnhw import golden
from bnnhw.lowering.lower import lower
from bnnhw.network.integer import IntegerNetwork
from bnnhw.network.spec import NetworkSpec, NumberFormats, Repair
from bnnhw.nn import BinaryResNet, untrained
from bnnhw.nn.convolution import BinaryConvolution

SINGLE = dict(double_residual=False)
BEFORE = dict(activation_position="before-add")
METHODS = {
    "default": Repair(),
    "rsign": Repair("rsign"),
    "single, minus-one": Repair(padding="minus-one", **SINGLE),
    "rsign, single": Repair("rsign", padding="minus-one", **SINGLE),
    "bn-before": Repair(feature_normalization="bn-before"),
    "bn-before, rsign": Repair("rsign", feature_normalization="bn-before", **SINGLE),
    "shift": Repair(feature_normalization="shift"),
    "none": Repair("rsign", feature_normalization="none", **SINGLE),
    "libra": Repair(weight_normalization="libra"),
    "bop": Repair(optimizer="bop"),
    "adabin": Repair(binary_sets="adabin"),
    "adabin, shift": Repair(binary_sets="adabin", feature_normalization="shift", **SINGLE),
    "channel-mean": Repair(scaling="channel-mean", feature_normalization="none"),
    "channel-learned": Repair(scaling="channel-learned", **SINGLE),
    "spatial": Repair(scaling="spatial"),
    "spatial, single": Repair(scaling="spatial", activation="rprelu", **SINGLE),
    "weights-2": Repair(ensemble="weights-2", padding="minus-one"),
    "weights-3": Repair(ensemble="weights-3", **SINGLE),
    "features-2": Repair(ensemble="features-2"),
    "features-3": Repair("rsign", ensemble="features-3", **SINGLE),
    "group-2": Repair(ensemble="group-2"),
    "group-2, single": Repair(ensemble="group-2", activation="rprelu", **SINGLE),
    "prelu": Repair(activation="prelu"),
    "rprelu": Repair(activation="rprelu", **SINGLE),
    "maxout": Repair(activation="maxout", **BEFORE),
    "rprelu, before": Repair("rsign", activation="rprelu", **SINGLE, **BEFORE),
    "se": Repair(squeeze_excitation="se"),
    "se, after": Repair(squeeze_excitation="se", activation="rprelu", **SINGLE),
    "se, before": Repair(squeeze_excitation="se", activation="rprelu", **BEFORE),
    "averages": Repair(downsample="avgpool-duplicate"),
    "averages, single": Repair(downsample="avgpool-duplicate", **SINGLE),
    "binary shortcut": Repair(downsample="conv1x1-binary", **SINGLE),
    "8-bit shortcut": Repair(downsample="conv1x1-8bit"),
    "thermometer": Repair(stem="thermometer"),
    "thermometer, minus-one": Repair("rsign", stem="thermometer", padding="minus-one"),
    "much": Repair(
        "rsign", False, binary_sets="adabin", scaling="spatial", activation="rprelu",
        squeeze_excitation="se", downsample="conv1x1-8bit", stem="thermometer",
    ),
    "more": Repair(
        ensemble="features-3", scaling="channel-learned", activation="maxout", **BEFORE,
        squeeze_excitation="se", downsample="avgpool-duplicate", feature_normalization="shift",
    ),
}  # fmt: skip
POINTS = {  # in each stage another one
    "points": ("default", (5, 4, 3)),
    "points, single": ("rsign, single", (3, 5, 4)),
    "points, rprelu": ("rprelu", (3, 4, 5)),
    "points, averages": ("averages", (5, 3, 4)),
    "points, binary shortcut": ("binary shortcut", (3, 5, 4)),
    "points, 8-bit shortcut": ("8-bit shortcut", (4, 3, 5)),
    "points, much": ("much", (5, 3, 4)),
}
Case = tuple[BinaryResNet, IntegerNetwork, dict[str, np.ndarray]]


def nchw(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(dtype)


FOREIGN = {  # of spec fields beside the repair
    "stem's activation": dict(stem_activation="rprelu"),
    "thermometer's activation": dict(repair=METHODS["thermometer"], stem_activation="maxout"),
    "pad": dict(pad=(3, 200)),
    "thermometer's pad": dict(repair=METHODS["thermometer"], pad=(3, 200)),
    "levels": dict(repair=METHODS["thermometer"], levels=(1, 9, 40, 200)),
    "stages of other lengths": dict(stages=(1, 3, 2)),
    "adabin, zeros": dict(repair=METHODS["adabin"], adabin_padding="zero"),
    "adabin, zeros, single": dict(
        repair=Repair(binary_sets="adabin", activation="rprelu", **SINGLE), adabin_padding="zero"
    ),
}


@pytest.fixture(params=[*METHODS, *POINTS, *FOREIGN], scope="module")
def case(request) -> Case:
    """A small random network, its integers and their tensors on random images."""
    method, points = POINTS.get(request.param, (request.param, ()))
    settings = FOREIGN.get(method) or dict(repair=METHODS[method])
    shape = dict(depth=8, widths=(8, 16, 20), input=(9, 12, 2), classes=5)
    shape |= dict(formats=NumberFormats(residual_fractions=points))
    spec = NetworkSpec(**{**shape, **settings})
    model = untrained(spec, seed=4)
    network = lower(model)
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 12, 2), dtype=np.uint8)
    return model, network, golden.run(network, images, "all")


def features(taps: dict[str, np.ndarray], name: str) -> torch.Tensor:
    """All bits that follow this tensor, as the layers have them: N times +-1 (B, C, H, W)."""
    bits = [tap for key, tap in taps.items() if key.startswith(f"{name}.bits")]
    return torch.stack([nchw(tap) for tap in bits]) * 2 - 1


def given_features(
    layer: BinaryConvolution, bits: torch.Tensor, stream: torch.Tensor | None
) -> torch.Tensor:
    """The float layer's output where these are its features."""
    sign, before = layer.binarizer.forward, layer.norm_before
    layer.binarizer.forward, layer.norm_before = (lambda x: list(bits)), None
    try:
        return layer(bits[0], stream if layer.shape.shortcut else None)
    finally:
        layer.binarizer.forward, layer.norm_before = sign, before


def signs_of(layer: BinaryConvolution, x: torch.Tensor) -> torch.Tensor:
    """Whether the float layer makes x, its input, +1: (N, B, C, H, W)."""
    norm = layer.norm_before
    if norm is not None:
        gain, mean, var = norm.weight.abs(), norm.running_mean, norm.running_var
        x = F.batch_norm(x, mean, var, gain, norm.bias, eps=norm.eps)
    return torch.stack(layer.binarizer(x)) > 0


def check_residual(
    real: torch.Tensor, got: np.ndarray, tolerance: float, unit: float = 16.0
) -> None:
    """Integers are the real values rounded half up, but for those this close to the half, and
    nowhere farther from them than that."""
    steps = np.clip((real.double() * unit).permute(0, 2, 3, 1).numpy(), -128, 127)
    far = np.abs(steps + 0.5 - np.round(steps + 0.5)) > tolerance
    assert np.array_equal(got[far], np.floor(steps + 0.5)[far])
    assert np.abs(got - steps).max() <= 0.5 + tolerance
    assert abs((got - steps).mean()) < 0.1  # no floor leans to one side


@torch.no_grad()
def test_every_layer_is_close_to_the_float_layer(case):
    model, network, taps = case
    repair = network.spec.repair
    real = model.stem(model.pixels(nchw(taps["input"])))
    unit = 2.0**-network.spec.formats.scale_fraction
    floored = np.abs(network.stem.requantiser.scale).max() * unit / 2
    rounded = np.abs(taps["stem.acc"] >> network.stem.pre_shift).max() * unit / 2
    if network.stem.levels is not None:
        floored = 0
    if network.stem.activation is not None:
        rounded *= 2
        floored = 2 * floored + 0.1
    one = 2.0 ** network.spec.formats.fraction(0)
    check_residual(real, taps["stem.residual"], 0.04 + floored + rounded, one)
    stream, name = taps["stem.residual"], "stem"
    for place, layer in enumerate(model.layers(), 1):
        real = given_features(layer, features(taps, name), nchw(stream) / one)
        name = layer.shape.name
        if layer.shape.shortcut:
            tolerance = 0.06 + 2.0**-network.spec.formats.guard
            tolerance += 0.4 * (repair.scaling == "spatial")
            tolerance += 0.1 * (repair.activation != "none")  # slopes of 8 bits after the point
            one, before = 2.0**layer.shape.fraction, one
            if f"{name}.shortcut.acc" in taps and repair.downsample == "conv1x1-8bit":
                shift = network.convolutions[place - 1].shortcut.pre_shift
                rounded = np.abs(taps[f"{name}.shortcut.acc"] >> shift).max() * unit / 2
                tolerance += (rounded + 1 / 16) * max(1.0, one / before)  # half an eighth of a step
            if repair.squeeze_excitation == "se":  # half a unit of the gate, and as much again
                tolerance += real.abs().max().item() * one / 128
            check_residual(real, taps[f"{name}.residual"], tolerance, one)
            stream = taps[f"{name}.residual"]
        elif place < len(model.layers()):
            got = features(taps, name) > 0
            assert (signs_of(model.layers()[place], real) != got).float().mean() < 0.01
    logits = model.head(nchw(stream) / one).numpy()
    unit = model.head.weight.abs().max().item() / 127 / (one * stream.shape[1] * stream.shape[2])
    bias_step = unit * 2**network.head.bias_shift
    assert np.abs(taps["head.logits"] * unit - logits).max() <= bias_step * 0.51 + 1e-4


@torch.no_grad()
def test_bits_are_those_of_the_next_binarizer(case):
    model, network, taps = case
    layers = model.layers()
    fractions = {layer.shape.name: layer.shape.fraction for layer in layers}
    fractions["stem"] = network.spec.formats.fraction(0)
    names = ["stem", *(layer.shape.name for layer in layers)]
    for name, after in zip(names[:-1], layers, strict=True):
        if f"{name}.residual" in taps:
            one = 2.0 ** fractions[name]
            real = signs_of(after, nchw(taps[f"{name}.residual"]) / one)
            assert torch.equal(real, features(taps, name) > 0)
    last = taps[f"{names[-1]}.residual"]
    assert np.array_equal(last >= 0, taps[f"{names[-1]}.bits"] == 1)


@torch.no_grad()
def test_gates_are_close_to_the_float_gates():
    spec = NetworkSpec(depth=8, widths=(8, 16, 20), input=(9, 12, 2), classes=5,
                       repair=Repair(squeeze_excitation="se"))  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 12, 2), dtype=np.uint8)
    for seed in range(3):
        model = untrained(spec, seed)
        network = lower(model)
        taps = golden.run(network, images, "all")
        name = "stem"
        for layer in model.layers():
            gate, shortcut, layer.shortcut = layer.gate, layer.shortcut, None
            layer.gate = None
            y = given_features(layer, features(taps, name), None)
            layer.gate, layer.shortcut = gate, shortcut
            hidden = F.relu(gate.reduce(y.mean((2, 3))))
            real = F.hardsigmoid(gate.expand(hidden)).numpy()
            one = 2 ** (network.spec.formats.scale_fraction - network.spec.formats.guard)
            name = layer.shape.name
            gates = taps[f"{name}.gate"][:, 0, 0] / one
            assert np.abs(gates - real).max() < 4 / 128  # blocks of 3x3 maps lose most
            assert len(np.unique(taps[f"{name}.gate"])) > 20
