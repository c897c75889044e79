"""The operations of ONNX and QONNX that compare and quantise: bits, and activations of a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bnnhw.importers.graph import Node
from bnnhw.importers.operators import (
    Operator,
    array,
    by_channel,
    channels_of,
    constant_for,
)
from bnnhw.importers.values import (
    Bits,
    Clipped,
    Constant,
    Mask,
    Pixels,
    Real,
    Step,
    Unsupported,
    Value,
    bent,
)

ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.round, "HALF_EVEN": np.round, "CEIL": np.ceil, "FLOOR": np.floor, "DOWN": np.fix,
}  # fmt: skip
CONTINUOUS = 1e-5  # of its own size, by which an activation may jump where it bends


def _next(level: np.ndarray) -> np.ndarray:
    """The least number above."""
    beyond: np.ndarray = np.nextafter(level, np.inf)
    return beyond


def clip(node: Node, values: list[Value]) -> Value:
    """Of a map: what is compared within the bounds is as if there were none."""
    bounds = [node.attributes.get("min", -np.inf), node.attributes.get("max", np.inf)]
    for at, value in enumerate(values[1:3]):
        given = array(value, "bound")
        bounds[at] = float(given.item()) if given.size else bounds[at]
    low, high = bounds
    if not isinstance(values[0], Real) or not low < high:
        raise Unsupported(f"clips to {low:g} and {high:g}, or what is no map of numbers")
    return Clipped(values[0], low, high)


def _compared(value: Value, level: np.ndarray) -> Real:
    """The map that is compared with these levels."""
    if isinstance(value, Clipped):
        if not ((value.low < level) & (level <= value.high)).all():
            raise Unsupported(f"compares what is clipped to {value.low:g} and {value.high:g} with "
                              f"another number")  # fmt: skip
        return value.map
    if isinstance(value, Pixels):
        raise Unsupported("makes bits of the image itself; use an 8-bit first convolution")
    if not isinstance(value, Real):
        raise Unsupported("must take a map of numbers")
    return value


def compare(node: Node, values: list[Value]) -> Value:
    """x >= c, x > c, x < c, x <= c, or with the constant first: a Mask, or its complement."""
    first, second = values
    turned = isinstance(first, Constant)
    value, given = (second, first) if turned else (first, second)
    if not isinstance(given, Constant):
        raise Unsupported("must compare a map of numbers with a constant")
    level = constant_for(value, given)
    kind = node.op
    if turned:
        kind = {"Greater": "Less", "Less": "Greater", "GreaterOrEqual": "LessOrEqual",
                "LessOrEqual": "GreaterOrEqual"}[kind]  # fmt: skip
    level = level if kind in ("GreaterOrEqual", "Less") else _next(level)
    mask = Mask(_compared(value, level), level)
    return mask if kind.startswith("Greater") else replace(mask, below=True)


def negate_mask(node: Node, values: list[Value]) -> Value:
    if not isinstance(values[0], Mask):
        raise Unsupported("must take a comparison")
    return replace(values[0], below=not values[0].below)


def where(node: Node, values: list[Value]) -> Value:
    """Of a comparison: two constants are bits, two functions of what was compared an activation."""
    mask, above, below = values
    if not isinstance(mask, Mask):
        raise Unsupported("its condition must be a comparison of a map with a constant")
    above, below = (below, above) if mask.below else (above, below)
    channels = mask.map.shape[0]
    if isinstance(above, Constant) and isinstance(below, Constant):
        high, low = (by_channel(part, channels, "choice") for part in (above, below))
        return Bits(mask.map.shape, node.name, mask.map, mask.level, low, high)
    return _two_slopes(node, mask, above, below)


def _two_slopes(node: Node, mask: Mask, above: Value, below: Value) -> Value:
    channels, known = mask.map.shape[0], mask.map.steps
    parts = []
    for part in (above, below):
        if isinstance(part, Constant):
            constant = by_channel(part, channels, "choice")
            parts.append((np.zeros(channels), constant))
            continue
        if not isinstance(part, Real) or part.root is not mask.map.root:
            raise Unsupported("chooses between maps of which one was not compared")
        if part.steps[: len(known)] != known:
            raise Unsupported("chooses between what does not follow from the map that it compares")
        gain, offset = np.ones(channels), np.zeros(channels)
        for step in part.steps[len(known) :]:
            if not step.affine:
                raise Unsupported("chooses between functions that are bent themselves")
            a, b = step.function.positive, step.function.shift_out
            b = b - a * step.function.shift_in
            gain, offset = a * gain, a * offset + b
        parts.append((gain, offset))
    (up, high), (down, low) = parts
    value = up * mask.level + high
    jump = np.abs(value - (down * mask.level + low))
    size = np.abs(high) + np.abs(low) + np.abs(up * mask.level) + 1e-6
    if (jump > CONTINUOUS * size).any():
        at = int(np.argmax(jump > CONTINUOUS * size))
        raise Unsupported(f"jumps by {jump[at]:.6g} where channel {at} is {mask.level[at]:.6g}")
    bend = np.where(np.abs(mask.level) < np.finfo(np.float64).tiny, 0.0, mask.level)
    function = bent(bend, up, down, value, channels)
    return replace(mask.map, steps=(*known, Step(node.name, function)))


def bipolar_quant(node: Node, values: list[Value]) -> Value:
    scale = constant_for(values[0], values[1])
    level = np.zeros(len(scale))
    value = _compared(values[0], level)
    return Bits(value.shape, node.name, value, level, -scale, scale)


def quant(node: Node, values: list[Value]) -> Value:
    """Of 1 bit: bits. Of the image: its values, which must stay as they are."""
    value = values[0]
    scale, zero = (constant_for(value, each) for each in values[1:3])
    width = array(values[3], "bit_width").reshape(-1)
    if len(width) != 1 or (scale <= 0).any() or width[0] not in range(1, 33):
        raise Unsupported("needs one bit_width of 1 to 32, and scales above 0")
    count = int(width[0])
    signed, narrow = node.attributes.get("signed", 1), node.attributes.get("narrow", 0)
    mode = node.attributes.get("rounding_mode", "ROUND").upper()
    if isinstance(value, Pixels) and value.pad is None:
        if mode not in ROUNDINGS:
            raise Unsupported(f"rounds by {mode}; use one of {', '.join(ROUNDINGS)}")
        low, high = _limits(count, signed, narrow)
        steps = (value.table / scale[:, None] + zero[:, None]).clip(low, high)
        table = (ROUNDINGS[mode](steps) - zero[:, None]) * scale[:, None]
        return replace(value, table=table)
    if count != 1:
        raise Unsupported(
            f"makes {count}-bit numbers; only of 1 bit, of weights or of the image is it exact "
            f"(the stream is rounded to the formats asked for)"
        )
    low, level = (-1 - zero) * scale, -zero * scale
    if not signed:
        if narrow or mode not in ("ROUND", "HALF_EVEN"):
            raise Unsupported("has one value, or another rounding than ROUND")
        low, level = -zero * scale, _next((0.5 - zero) * scale)  # a half is rounded to even, 0
    real = _compared(value, level)
    return Bits(real.shape, node.name, real, level, low, (1 - zero) * scale)


def _limits(width: int, signed: int, narrow: int) -> tuple[int, int]:
    """The least and greatest integer, as QONNX has them."""
    if signed:
        return -(2 ** (width - 1)) + bool(narrow), 2 ** (width - 1) - 1
    return 0, 2**width - 1 - bool(narrow)


def multi_threshold(node: Node, values: list[Value]) -> Value:
    levels = array(values[1], "thresholds")
    if levels.ndim != 2 or levels.shape[1] != 1:
        raise Unsupported(f"has {levels.shape[-1]} thresholds, so more than one bit")
    if node.attributes.get("data_layout", "") not in ("", "NCHW"):
        raise Unsupported(f"is of layout {node.attributes['data_layout']}; use NCHW")
    channels, _ = channels_of(values[0])
    level = by_channel(Constant(levels[:, :, None]), channels, "thresholds")
    value = _compared(values[0], level)
    scale = np.float64(node.attributes.get("out_scale", 1.0))
    low = np.full(len(level), np.float64(node.attributes.get("out_bias", 0.0)))
    return Bits(value.shape, node.name, value, level, low, low + scale)


BITS: dict[str, Operator] = {
    "Greater": compare, "GreaterOrEqual": compare, "Less": compare, "LessOrEqual": compare,
    "Clip": clip, "Not": negate_mask, "Where": where, "BipolarQuant": bipolar_quant, "Quant": quant,
    "IntQuant": quant, "MultiThreshold": multi_threshold,
}  # fmt: skip
