"""The tensors of a network trained elsewhere, by name -> FoldedNetwork.

docs/import.md has the table of names and shapes, and what each is folded to. A spec says what the
network is; the tensors say the rest, so nothing of PyTorch's modules is needed here: arrays of
numpy and tensors of PyTorch are both taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnnhw.errors import UserError
from bnnhw.importers.tensors import Tensors, affine, identity
from bnnhw.network.folded import (
    Folded,
    FoldedActivation,
    FoldedHead,
    FoldedNetwork,
    FoldedShortcut,
    FoldedStem,
    FoldedThermometer,
    Term,
    after_affine,
    before_affine,
    padded_taps,
)
from bnnhw.network.integer import structure
from bnnhw.network.operations import INT8_MAX
from bnnhw.network.repair import Repair
from bnnhw.network.spec import Convolution, NetworkSpec, thermometer_levels

DROPPED = ("module.", "model.", "_orig_mod.")
STREAM_NORMS = ("stream_norm", "stream_norm_after")  # of the sum, about its activation
LEVELS = 32
TAKEN = dict(  # methods whose parameters the table has, or that have none
    ensemble=("none",), scaling=("none", "channel-mean", "channel-learned"),
    squeeze_excitation=("none",), weight_normalization=("none", "libra"),
)  # fmt: skip


def import_state_dict(
    spec: NetworkSpec, state: Mapping[str, Any], *, names: Mapping[str, str] | None = None,
    mean: tuple[float, ...] = (), std: tuple[float, ...] = (), eps: float = 1e-5,
    rounded: bool = False,
) -> FoldedNetwork:  # fmt: skip
    """Returns the network of a state dict, everything folded.

    names : our names -> the state's, where they differ; a layer's name stands for all below it.
    mean, std : of each colour, what pixels / 255 were normalised by. Without them the network took
    (byte - 128) / 64, as ours do. eps : of all batch norms.
    rounded : whether the stream was rounded to the spec's formats in training, as ours is.
    Raises UserError with all names that are missing or unknown together, and with the name and
    value of whatever cannot be represented.
    """
    tensors = Tensors(state, dict(names or {}), DROPPED)
    for shape in spec.convolutions():
        _check_methods(shape.name, shape.repair or spec.repair)
    colours = spec.input[2]
    for what, values in (("mean", mean), ("std", std)):
        if values and len(values) != colours:
            raise UserError(f"{what}={values}: give one for each of {colours} colours")
    if bool(mean) != bool(std):
        raise UserError(f"mean={mean}, std={std}: give both or none of them")
    stem = _stem(spec, tensors, mean, std, eps)
    layers = tuple(_layer(shape, spec, tensors, eps) for shape in spec.convolutions())
    head = _head(spec, tensors, eps)
    tensors.check()
    return FoldedNetwork(spec, stem, layers, head, rounded)


def _check_methods(name: str, repair: Repair) -> None:
    for what, values in TAKEN.items():
        value = getattr(repair, what)
        if value not in values:
            raise UserError(
                f"{name}: {what}={value} has no names in a state dict; use {what}="
                f"{' or '.join(values)}, or make a FoldedNetwork"
            )


def _signs(values: np.ndarray) -> np.ndarray:
    """+1 where values >= 0, int8."""
    return np.where(values >= 0, 1, -1).astype(np.int8)


def _taps(weights: np.ndarray) -> np.ndarray:
    """(O, I, kh, kw) -> (O, kh, kw, I)."""
    return np.ascontiguousarray(weights.transpose(0, 2, 3, 1))


def _bytes(weights: np.ndarray, *, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8 multiples of the weights' greatest magnitude / 127, and that unit.

    rows : whether each row has its own.
    """
    axes = tuple(range(1, weights.ndim)) if rows else None
    greatest = np.abs(weights).max(axes, keepdims=True)
    unit = np.where(greatest > 0, greatest / INT8_MAX, 1.0)
    return np.round(weights / unit).astype(np.int8), unit.reshape(-1)


def _activation(tensors: Tensors, name: str, kind: str, channels: int) -> FoldedActivation | None:
    """An activation's tensors: NAME.negative, and what its kind has beside it."""
    if kind == "none":
        return None
    negative = tensors.take(f"{name}.negative", (channels,), spread=True)
    ones, zeros = np.ones(channels), np.zeros(channels)
    positive, shift_in, shift_out = ones, zeros, zeros
    if kind == "maxout":
        positive = tensors.take(f"{name}.positive", (channels,), spread=True)
    if kind == "rprelu":
        shift_in = tensors.take(f"{name}.shift_in", (channels,))
        shift_out = tensors.take(f"{name}.shift_out", (channels,))
    return FoldedActivation(shift_in, positive, negative, shift_out)


def _around(
    tensors: Tensors, name: str, act: FoldedActivation | None, channels: int, eps: float
) -> FoldedActivation | None:
    """The activation with the norms of the stream just before and after it, where there are any."""
    before = affine(tensors, f"{name}.{STREAM_NORMS[0]}", channels, eps, optional=True)
    after = affine(tensors, f"{name}.{STREAM_NORMS[1]}", channels, eps, optional=True)
    if before is not None:
        act = after_affine(act, before.gain, before.offset)
    return act if after is None else before_affine(act, after.gain, after.offset)


def _stem(
    spec: NetworkSpec, tensors: Tensors, mean: tuple[float, ...], std: tuple[float, ...], eps: float
) -> FoldedStem | FoldedThermometer:
    out, colours = spec.stem_channels, spec.input[2]
    norm = affine(tensors, "stem.norm", out, eps, optional=True) or identity(out)
    act = _activation(tensors, "stem.activation", spec.stem_activation, out)
    if spec.repair.stem == "thermometer":
        if std:
            raise UserError(
                f"std={std}: a thermometer stem takes bytes; put the normalisation into the "
                f"spec's levels"
            )
        levels = np.array(spec.levels or thermometer_levels(LEVELS))
        weights = tensors.take("stem.weight", (out, colours * len(levels), 3, 3))
        return FoldedThermometer(
            levels, Term(_taps(_signs(weights)), norm.gain, 0), norm.offset, act
        )
    weights = tensors.take("stem.weight", (out, colours, 3, 3))
    bias = tensors.optional("stem.bias", (out,), 0.0)
    if std:  # x = byte / 255 / std - mean / std, of which byte - 128 is taken out
        scale = 1 / (255 * np.array(std))
        bias = bias + (weights * ((128 / 255 - np.array(mean)) / std)[:, None, None]).sum((1, 2, 3))
        weights = weights * scale[:, None, None]
        _check_pad(spec, 255 * np.array(mean))
    else:
        weights = weights / 64
        _check_pad(spec, np.full(colours, 128.0))
    whole, unit = _bytes(weights, rows=True)
    return FoldedStem(_taps(whole), norm.gain * unit, norm.offset + norm.gain * bias, act)


def _check_pad(spec: NetworkSpec, real: np.ndarray) -> None:
    """Whether padded pixels are the byte that is 0 after normalisation, rounded."""
    needed = tuple(int(byte) for byte in np.round(real).clip(0, 255))
    if (spec.pad or (128,) * len(needed)) != needed:
        raise UserError(
            f"pad={spec.pad or (128,) * len(needed)}: zero padding after this normalisation is "
            f"byte {', '.join(f'{byte:.5g}' for byte in real)}; give the spec pad={needed}"
        )


def _layer(shape: Convolution, spec: NetworkSpec, tensors: Tensors, eps: float) -> Folded:
    name, repair = shape.name, shape.repair or spec.repair
    out, inside = shape.out_channels, shape.in_channels
    latent = tensors.take(f"{name}.weight", (out, inside, 3, 3))
    thresholds = _thresholds(tensors, shape, repair, eps)
    gain, shared = _gains(tensors, name, latent, repair)
    adabin = repair.binary_sets == "adabin"
    centre, distance = 0.0, 1.0
    if adabin:
        centre = float(tensors.take(f"{name}.binarizer.centre", ()))
        distance = abs(float(tensors.take(f"{name}.binarizer.distance", ())))
        if not distance:
            raise UserError(f"{name}.binarizer.distance=0: features would have one value")
        thresholds = thresholds + centre
    optional = repair.feature_normalization != "bn-after"
    norm = affine(tensors, f"{name}.norm", out, eps, optional=optional) or identity(out)
    bias = tensors.optional(f"{name}.bias", (out,), 0.0)
    standard = _standardised(latent) if adabin or repair.weight_normalization == "libra" else latent
    signs = _signs(standard)
    terms = [Term(_taps(signs), norm.gain * gain * distance, 0)]
    offset, border = norm.offset + norm.gain * bias, None
    if adabin:
        ones = np.ones((1, 3, 3, inside), np.int8)
        terms.append(Term(ones, norm.gain * shared * distance, 0))
        real = signs * (norm.gain * gain)[:, None, None, None]
        real = real + (norm.gain * shared)[:, None, None, None]
        offset = offset + centre * real.sum((1, 2, 3))
        border = -centre * padded_taps(real) if spec.adabin_padding == "zero" else None
    normed = any(tensors.has(f"{name}.{at}.running_var") for at in STREAM_NORMS)
    named = any(tensors.has(f"{name}.activation.{part}") for part in ("negative", "positive"))
    kind = repair.activation if named or not normed else "none"  # a norm alone is one slope
    act = _activation(tensors, f"{name}.activation", kind, out)
    around = _around(tensors, name, act, out, eps)
    if around is not act and not structure(shape, repair).after:
        raise UserError(
            f"{name}.stream_norm: folds into an activation after the addition; give the layer a "
            f"shortcut, activation=maxout and activation_position=after-add"
        )
    made = _shortcut(tensors, shape, repair, eps)
    return Folded(thresholds, tuple(terms), offset, None, around, None, made, border)


def _standardised(latent: np.ndarray) -> np.ndarray:
    """Latent weights as they are signed: their mean is 0."""
    centred: np.ndarray = latent - latent.mean((1, 2, 3), keepdims=True)
    return centred


def _gains(
    tensors: Tensors, name: str, latent: np.ndarray, repair: Repair
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of each output channel's sum, and of its window's sum."""
    out = len(latent)
    factor = tensors.optional(f"{name}.scale", (out,), 1.0) * np.ones(out)
    if repair.scaling == "channel-mean":
        factor = factor * np.abs(latent).mean((1, 2, 3))
    if repair.binary_sets != "adabin":
        return factor, np.zeros(out)
    return factor * latent.std((1, 2, 3)), factor * latent.mean((1, 2, 3))


def _thresholds(tensors: Tensors, shape: Convolution, repair: Repair, eps: float) -> np.ndarray:
    """(1, I), where +1 begins."""
    channels, name = shape.in_channels, shape.name
    level = np.zeros(channels)
    if repair.feature_binarizer == "rsign":
        level = tensors.take(f"{name}.binarizer.threshold", (channels,))
    if repair.feature_normalization == "bn-before":
        before = affine(tensors, f"{name}.norm_before", channels, eps)
        if before is not None:
            if (before.gain <= 0).any():
                at = int(np.argmax(before.gain <= 0))
                raise UserError(
                    f"{name}.norm_before.weight[{at}]={before.gain[at]:.6g}: must be above 0, as "
                    f"features that fall would need other weights; negate it and them"
                )
            level = (level - before.offset) / before.gain
    return level[None]


def _shortcut(
    tensors: Tensors, shape: Convolution, repair: Repair, eps: float
) -> FoldedShortcut | None:
    if not structure(shape, repair).shortcut:
        return None
    name, out = f"{shape.name}.shortcut", shape.out_channels
    weights = tensors.take(f"{name}.weight", (out, shape.shortcut_channels, 1, 1))[:, :, 0, 0]
    norm = affine(tensors, f"{name}.norm", out, eps, optional=True) or identity(out)
    if repair.downsample == "conv1x1-binary":
        return FoldedShortcut(_signs(weights), norm.gain, norm.offset, binary=True)
    whole, unit = _bytes(weights, rows=True)
    return FoldedShortcut(whole, norm.gain * unit, norm.offset, binary=False)


def _head(spec: NetworkSpec, tensors: Tensors, eps: float) -> FoldedHead:
    """The linear layer, with the norm of its means folded into it."""
    channels = spec.convolutions()[-1].out_channels
    weights = tensors.take("head.weight", (spec.classes, channels))
    bias = tensors.optional("head.bias", (spec.classes,), 0.0) * np.ones(spec.classes)
    norm = affine(tensors, "head.norm", channels, eps, optional=True)
    if norm is not None:
        bias, weights = bias + weights @ norm.offset, weights * norm.gain
    whole, unit = _bytes(weights, rows=False)
    return FoldedHead(whole, float(unit[0]), bias)
