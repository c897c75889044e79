"""A network in real numbers, as plain numpy: what every trained or imported one becomes.

`bnnhw.lowering` takes it and makes integers of it; `bnnhw.network.real` runs it as it is. Nothing
here knows gradients, batch norm or latent weights: each is folded into the numbers below. Arrays
are float64 unless their description says otherwise.

In order of operation, for one image; a map is (H, W, C), `acc` a 3x3 convolution with zero padding
unless `spec.repair.padding` says otherwise, and the spec says strides, shapes and shortcuts:
    stem        acc of the bytes less 128, or of their thermometers' bits as +-1
                x = gain * acc + offset
                x = activation(x), where there is one
                the stream is x
    each layer  bits_n = +1 where x >= thresholds[n], else -1
                y = the sum of gain * acc over the terms, each of its feature's bits
                y = spatial * y + offset + border
                y = activation(y) where the spec has it before the addition, or nothing is added
                y = y * gate, with a shortcut
                y = y + shortcut of the stream, with a shortcut
                y = activation(y) where the spec has it after the addition
                x = y, and the stream is y with a shortcut
    head        logits = unit * weights @ mean of the stream over the map + bias
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.spec import Convolution, NetworkSpec


@dataclass(frozen=True)
class Term:
    """gain[c] * acc[c], acc the convolution of one feature's bits (+-1) with these weights.

    weights : int8 (O, kh, kw, I) of -1 and +1; (1, kh, kw, I) if all outputs share them.
    gain : (O,), of any sign.
    feature : which of the layer's thresholds made the bits.
    """

    weights: np.ndarray
    gain: np.ndarray
    feature: int


@dataclass(frozen=True)
class FoldedActivation:
    """slope * (x - shift_in) + shift_out, slope `positive` where x >= shift_in, else `negative`.

    All (O,); slopes are of any sign.
    """

    shift_in: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    shift_out: np.ndarray


@dataclass(frozen=True)
class FoldedGate:
    """A factor per channel: clamp(z / 6 + 1/2, 0, 1), z = w2 relu(w1 mean + b1) + b2.

    mean : over the map, (O,). w1 : (hidden, O). b1 : (hidden,). w2 : (O, hidden). b2 : (O,).
    """

    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray


@dataclass(frozen=True)
class FoldedShortcut:
    """A 1x1 convolution of the stream at every other pixel: gain[c] * acc[c] + offset[c].

    weights : int8 (O, I). Binary: -1 and +1, acc counts the signs of the stream (0 is +1).
        8-bit: in [-127, 127], acc sums the stream's real values.
    binary : which of the two. gain, offset : (O,).
    """

    weights: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    binary: bool


@dataclass(frozen=True)
class Folded:
    """One binary convolution, from its input to what goes on; the module says in which order.

    thresholds : (N, I), the least input (stream, or the real output of the convolution before)
        whose bit is +1; infinite where it always or never is.
    terms : the sums. offset : (O,).
    spatial : (H, W) of the output, none negative; None is 1.
    border : (3, 3, O), added at positions whose window sticks out of the map: row 0 above, 2
        below, 1 not; column 0 to the left, 2 to the right, 1 not. border[1, 1] is 0; None is 0.
    activation : before or after the shortcut is added, as the spec says; before it where there
        is no shortcut.
    gate : times y, just before the shortcut is added.
    shortcut : None where the stream is added as it is, padded or averaged.
    """

    thresholds: np.ndarray
    terms: tuple[Term, ...]
    offset: np.ndarray
    spatial: np.ndarray | None = None
    activation: FoldedActivation | None = None
    gate: FoldedGate | None = None
    shortcut: FoldedShortcut | None = None
    border: np.ndarray | None = None


@dataclass(frozen=True)
class FoldedStem:
    """The 8-bit stem: gain[c] * acc + offset[c], acc the sum of (byte - 128) * weight.

    weights : int8 (O, 3, 3, I) in [-127, 127]. gain, offset : (O,). Padded taps are the byte that
        the spec pads a colour with.
    """

    weights: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    activation: FoldedActivation | None = None


@dataclass(frozen=True)
class FoldedThermometer:
    """The binary stem: a term of the bits byte >= level, and offset[c].

    levels : int (L,), rising, those of the spec. Bit l of colour i is the term's input channel
        i * L + l.
    """

    levels: np.ndarray
    term: Term
    offset: np.ndarray
    activation: FoldedActivation | None = None


@dataclass(frozen=True)
class FoldedHead:
    """logits = unit * weights @ mean + bias.

    weights : int8 (classes, C) in [-127, 127]. unit : real value of one step of theirs.
    bias : (classes,).
    """

    weights: np.ndarray
    unit: float
    bias: np.ndarray


@dataclass(frozen=True)
class FoldedNetwork:
    """A whole network; UserError unless every number is finite and there is a layer for each of
    the spec's convolutions.

    rounded : whether its stream was rounded to the spec's formats while it was trained, so that its
        thresholds are those of steps. Else they are of real numbers.
    """

    spec: NetworkSpec
    stem: FoldedStem | FoldedThermometer
    layers: tuple[Folded, ...]
    head: FoldedHead
    rounded: bool = True

    def __post_init__(self) -> None:
        shapes = self.spec.convolutions()
        if len(self.layers) != len(shapes):
            raise UserError(f"layers: there are {len(self.layers)}, the spec has {len(shapes)}")
        for name, part in (("stem", self.stem), ("head", self.head)):
            _check_finite(name, part)
        for shape, layer in zip(shapes, self.layers, strict=True):
            _check_finite(shape.name, layer)
        _check_stem(self.stem, self.spec)
        for shape, layer in zip(shapes, self.layers, strict=True):
            _check_layer(layer, shape, self.spec)
        wanted = dict(weights=(self.spec.classes, shapes[-1].out_channels))
        _check_shapes("head", self.head, FoldedHead, wanted | dict(bias=(self.spec.classes,)))

    def folded(self) -> FoldedNetwork:
        """Returns itself, as models return what they fold to."""
        return self


def padded_taps(weight: np.ndarray) -> np.ndarray:
    """Returns the sum of the taps outside of the map, of real weights (O, I, 3, 3): (3, 3, O), as
    Folded.border has positions."""
    taps, sums = weight.sum(1), np.zeros((3, 3, len(weight)))
    for row, column in np.ndindex(3, 3):
        outside = np.zeros((3, 3), bool)
        if row != 1:
            outside[row] = True
        if column != 1:
            outside[:, column] = True
        sums[row, column] = taps[:, outside].sum(1)
    return sums


def after_affine(
    activation: FoldedActivation | None, gain: np.ndarray, offset: np.ndarray
) -> FoldedActivation:
    """Returns the activation of gain * x + offset, as one: a normalisation before it, exactly.

    Without an activation it is the normalisation itself, of one slope. gain, offset : (O,).
    """
    if activation is None:
        zero = np.zeros_like(gain)
        return FoldedActivation(zero, gain, gain, offset)
    flat = gain == 0
    shift_in = np.where(flat, 0.0, (activation.shift_in - offset) / np.where(flat, 1.0, gain))
    above = np.where(gain > 0, activation.positive, activation.negative) * gain
    below = np.where(gain > 0, activation.negative, activation.positive) * gain
    slope = np.where(offset >= activation.shift_in, activation.positive, activation.negative)
    constant = slope * (offset - activation.shift_in) + activation.shift_out
    return FoldedActivation(shift_in, above, below, np.where(flat, constant, activation.shift_out))


def before_affine(
    activation: FoldedActivation | None, gain: np.ndarray, offset: np.ndarray
) -> FoldedActivation:
    """Returns gain * activation(x) + offset as one activation, exactly."""
    if activation is None:
        return after_affine(None, gain, offset)
    return FoldedActivation(
        activation.shift_in, activation.positive * gain, activation.negative * gain,
        activation.shift_out * gain + offset,
    )  # fmt: skip


def _check_shapes(name: str, part: object, kind: type, shapes: dict[str, tuple[int, ...]]) -> None:
    if not isinstance(part, kind):
        raise UserError(f"{name}: must be a {kind.__name__}, is a {type(part).__name__}")
    for field, shape in shapes.items():
        array = getattr(part, field)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise UserError(f"{name}.{field}: must be of shape {shape}, is {np.shape(array)}")


def _check_activation(name: str, part: object, kind: str, channels: int) -> None:
    if (part is None) != (kind == "none"):
        raise UserError(f"{name}: not that of activation={kind}")
    if part is not None:
        parts = ("shift_in", "positive", "negative", "shift_out")
        _check_shapes(name, part, FoldedActivation, dict.fromkeys(parts, (channels,)))


def _check_term(name: str, part: object, shape: tuple[int, ...], features: int) -> None:
    shared = isinstance(part, Term) and len(part.weights) == 1
    weights = (1, *shape[1:]) if shared else shape
    _check_shapes(name, part, Term, dict(weights=weights, gain=shape[:1]))
    assert isinstance(part, Term)
    if not np.isin(part.weights, (-1, 1)).all() or not 0 <= part.feature < features:
        raise UserError(f"{name}: weights must be -1 and +1, its feature one of {features}")


def _check_stem(part: FoldedStem | FoldedThermometer, spec: NetworkSpec) -> None:
    out, colours = spec.stem_channels, spec.input[2]
    if spec.repair.stem == "thermometer":
        _check_shapes("stem", part, FoldedThermometer, dict(offset=(out,)))
        assert isinstance(part, FoldedThermometer)
        _check_term("stem.term", part.term, (out, 3, 3, colours * len(part.levels)), 1)
    else:
        wanted = dict(weights=(out, 3, 3, colours), gain=(out,), offset=(out,))
        _check_shapes("stem", part, FoldedStem, wanted)
    _check_activation("stem.activation", part.activation, spec.stem_activation, out)


def _check_layer(part: Folded, shape: Convolution, spec: NetworkSpec) -> None:
    name, out, repair = shape.name, shape.out_channels, shape.repair or spec.repair
    wanted: dict[str, tuple[int, ...]] = dict(
        thresholds=(repair.features, shape.in_channels), offset=(out,)
    )
    if repair.scaling == "spatial":
        wanted["spatial"] = (shape.out_height, shape.out_width)
    if repair.binary_sets == "adabin" and spec.adabin_padding == "zero":
        wanted["border"] = (3, 3, out)
    _check_shapes(name, part, Folded, wanted)
    for at, term in enumerate(part.terms):
        taps = (out, 3, 3, shape.in_channels)
        _check_term(f"{name}.terms[{at}]", term, taps, repair.features)
    _check_activation(f"{name}.activation", part.activation, repair.activation, out)
    moves = shape.shortcut and shape.shortcut_stride > 1
    if moves and repair.downsample.startswith("conv1x1"):
        weights = (out, shape.shortcut_channels)
        _check_shapes(f"{name}.shortcut", part.shortcut, FoldedShortcut,
                      dict(weights=weights, gain=(out,), offset=(out,)))  # fmt: skip
    if shape.shortcut and repair.squeeze_excitation != "none":
        hidden = len(getattr(part.gate, "b1", ()))
        _check_shapes(f"{name}.gate", part.gate, FoldedGate,
                      dict(w1=(hidden, out), w2=(out, hidden), b2=(out,)))  # fmt: skip


def _check_finite(name: str, part: object) -> None:
    for where, array in _arrays(name, part):
        infinite = np.isnan(array) if where.endswith(".thresholds") else ~np.isfinite(array)
        if infinite.any():
            at = int(np.argmax(infinite))
            raise UserError(f"{where}[{at}]={array.flat[at]}: must be finite")


def _arrays(name: str, part: object) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a part, by name."""
    if isinstance(part, np.ndarray):
        yield name, part
    elif isinstance(part, tuple):
        for at, child in enumerate(part):
            yield from _arrays(f"{name}[{at}]", child)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _arrays(f"{name}.{field.name}", getattr(part, field.name))
