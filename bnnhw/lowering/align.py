"""Streams moved by less than a step, so that rounding them changes no bit.

A network whose stream was never rounded compares real numbers with its thresholds. Rounded to the
nearest step, a number just below a threshold may reach it: a slope near zero, for instance, leaves
small negative numbers, which all become 0. So each channel of the stream gets a constant that puts
its threshold on the border between two steps. What takes the stream next takes the constant away
again. The network is the same function, but for its thresholds, which are now whole.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnhw.network.folded import (
    Folded,
    FoldedActivation,
    FoldedNetwork,
    FoldedStem,
    FoldedThermometer,
)
from bnnhw.network.integer import saturation, structure
from bnnhw.network.spec import Convolution, NetworkSpec, NumberFormats

INSIDE = 0.25  # of a step, by which a level lies below the step that reaches it


def aligned(network: FoldedNetwork, formats: NumberFormats) -> FoldedNetwork:
    """Returns the network for streams of these formats, whose guard counts, too."""
    spec = replace(network.spec, formats=formats)
    shapes = spec.convolutions()
    streams = [0, *(at for at, shape in enumerate(shapes, 1) if shape.shortcut)]
    fractions = [formats.fraction(0), *(shape.fraction for shape in shapes)]
    stem, layers = network.stem, list(network.layers)
    moved = np.zeros(spec.stem_channels)  # the stream that the next shortcut takes
    for at, after in zip(streams, [*streams[1:], None], strict=True):
        if at:
            layers[at - 1] = _taken_back(layers[at - 1], shapes[at - 1], spec, moved)
        channels = shapes[at - 1].out_channels if at else spec.stem_channels
        moved = np.zeros(channels)
        if after is None or not _may_move(at, after, shapes, spec):
            continue
        act = stem.activation if not at else layers[at - 1].activation
        if at and not structure(shapes[at - 1], spec.repair).after:
            act = None
        part = layers[after - 1].shortcut
        signs = part is not None and part.binary
        level, moved = _moved(layers[at].thresholds, act, signs, fractions[at], formats)
        layers[at] = replace(layers[at], thresholds=level)
        if at:
            layers[at - 1] = _given(layers[at - 1], shapes[at - 1], spec, moved)
        else:
            stem = _stem(stem, moved)
    return replace(network, stem=stem, layers=tuple(layers))


def _may_move(at: int, after: int, shapes: tuple[Convolution, ...], spec: NetworkSpec) -> bool:
    """Whether a constant can be added to a stream, and be taken away where it goes next.

    A gate multiplies what comes before the addition, and nothing is added after it.
    """
    parts = [structure(shapes[place - 1], spec.repair) for place in (at, after) if place]
    return not any(part.gate and not part.after for part in parts)


def _moved(
    levels: np.ndarray, act: FoldedActivation | None, signs: bool, fraction: int,
    formats: NumberFormats,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Returns levels of a stream that is moved, and by how much: (N, C) and (C,).

    The first of a channel's levels is reached by the wide number after it, or by that of `_bent`.
    act : what the stream comes from. signs : whether the shortcut takes the stream's signs. Then
    zero is the level that must stay.
    """
    step, unit = 2.0**fraction, 2.0**formats.guard
    limit = (saturation(formats.residual_width)[1] - 1) * unit
    wide = levels * step * unit
    within = np.abs(wide[0]) < limit
    level = np.where(within & (not signs), wide[0], 0.0)
    first = np.floor(level) + 1
    if act is not None:
        first = _bent(level, first, act, step * unit)
    top = 0.0 if signs else np.ceil(first / unit) * unit
    last = np.where(within | signs, top - first, unit / 2)  # what is added before the floor
    whole = np.round((wide + last) / unit)
    whole[0] = np.where(within & (wide[0] == level), top / unit, whole[0])
    made = np.where((within | signs) & np.isfinite(wide), (whole - INSIDE) / step, levels)
    return made, (last - unit / 2) / unit / step


def _bent(level: np.ndarray, first: np.ndarray, act: FoldedActivation, unit: float) -> np.ndarray:
    """Returns the wide numbers that reach a level, of an activation that may bend at it.

    A slope of almost zero leaves numbers that all become the one of the bend: it must be on the
    side of the level that they are on. So must the one value of a slope of zero.
    """
    bend = act.shift_out * unit
    value, reaches = np.round(bend), bend >= level
    left = np.abs(act.negative) < np.abs(act.positive)  # of the bend is the lesser slope
    slope = np.where(left, act.negative, act.positive)
    above = np.where(slope == 0, reaches, (slope < 0) == left)
    near = np.where(slope == 0, reaches == (value < first), np.abs(bend - level) < 1)
    result: np.ndarray = np.where(near, np.where(above, value, value + 1), first)
    return result


def _out(part: FoldedActivation, by: np.ndarray) -> FoldedActivation:
    return replace(part, shift_out=part.shift_out + by)


def _stem(stem: FoldedStem | FoldedThermometer, by: np.ndarray) -> FoldedStem | FoldedThermometer:
    if stem.activation is not None:
        return replace(stem, activation=_out(stem.activation, by))
    return replace(stem, offset=stem.offset + by)


def _given(layer: Folded, shape: Convolution, spec: NetworkSpec, by: np.ndarray) -> Folded:
    """The layer with a constant more on its stream."""
    if layer.activation is not None:
        return replace(layer, activation=_out(layer.activation, by))
    return replace(layer, offset=layer.offset + by)


def _taken_back(layer: Folded, shape: Convolution, spec: NetworkSpec, moved: np.ndarray) -> Folded:
    """The layer as it was, now that its shortcut's stream has this constant more."""
    if not moved.any():
        return layer
    part = layer.shortcut
    if part is not None and part.binary:
        return layer
    if part is not None:
        more = part.gain * (part.weights.astype(np.float64) @ moved)
        return replace(layer, shortcut=replace(part, offset=part.offset - more))
    parts = structure(shape, spec.repair)
    more = np.zeros(shape.out_channels)
    if parts.averages:
        more = moved[np.arange(shape.out_channels) % len(moved)]
    else:
        more[shape.shortcut_offset : shape.shortcut_offset + len(moved)] = moved
    act = layer.activation
    if act is not None and parts.before:
        return replace(layer, activation=_out(act, -more))
    if act is not None and parts.gate:
        return replace(layer, activation=replace(act, shift_in=act.shift_in + more))
    return replace(layer, offset=layer.offset - more)
