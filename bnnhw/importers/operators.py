"""The operations of ONNX and QONNX on what tensors are: elementwise ones, comparisons, bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bnnhw.importers.graph import Node
from bnnhw.importers.values import (
    Bits,
    Constant,
    Logits,
    Mask,
    Means,
    Pixels,
    Real,
    Step,
    Unsupported,
    Value,
    affine,
    bent,
)

Operator = Callable[[Node, list[Value]], Value]
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.round, "HALF_EVEN": np.round, "CEIL": np.ceil, "FLOOR": np.floor, "DOWN": np.fix,
}  # fmt: skip
CONTINUOUS = 1e-5  # of its own size, by which an activation may jump where it bends


def array(value: Value, what: str) -> np.ndarray:
    """Returns a constant as float64."""
    if not isinstance(value, Constant):
        raise Unsupported(f"its {what} must be constant")
    return np.asarray(value.array, np.float64)


def integers(value: Value, what: str) -> list[int]:
    """Returns a constant of whole numbers, however great."""
    if not isinstance(value, Constant):
        raise Unsupported(f"its {what} must be constant")
    return [int(each) for each in value.array.reshape(-1)]


def by_channel(value: Value, channels: int, what: str, rank: int = 4) -> np.ndarray:
    """Returns a constant that meets a map (1, C, H, W), or (1, C) of rank 2, as (C,)."""
    given = array(value, what)
    full = given.reshape((1,) * (rank - given.ndim) + given.shape)
    if full.ndim > rank or full.shape[0] != 1 or any(size != 1 for size in full.shape[2:]):
        raise Unsupported(
            f"its {what} of shape {given.shape} differs by pixel, not by channel alone"
        )
    if full.shape[1] not in (1, channels):
        raise Unsupported(f"its {what} of shape {given.shape} does not meet {channels} channels")
    return np.broadcast_to(full.reshape(-1), (channels,)).astype(np.float64)


def scaled(node: Node, value: Value, gain: np.ndarray, offset: np.ndarray) -> Value:
    """Returns gain * value + offset, both (C,) of the value's channels."""
    if isinstance(value, Real):
        return replace(value, steps=(*value.steps, Step(node.name, affine(gain, offset))))
    if isinstance(value, Pixels):
        if value.pad is not None:
            raise Unsupported("comes after the padding of the image")
        return replace(value, table=gain[:, None] * value.table + offset[:, None])
    if isinstance(value, Bits):
        if value.pad is not None:
            raise Unsupported("comes after the padding of bits")
        return replace(value, low=gain * value.low + offset, high=gain * value.high + offset)
    if isinstance(value, Means):
        return replace(value, gain=gain * value.gain, offset=gain * value.offset + offset)
    if isinstance(value, Logits):
        return replace(
            value, weights=gain[:, None] * value.weights, bias=gain * value.bias + offset
        )
    raise Unsupported("takes what is no map")


def channels_of(value: Value) -> tuple[int, int]:
    """Returns channels and rank of a tensor that has them."""
    if isinstance(value, Mask):
        return value.map.shape[0], 4
    if isinstance(value, Means):
        return len(value.gain), 2
    if isinstance(value, Logits):
        return len(value.bias), 2
    if isinstance(value, Constant):
        raise Unsupported("takes constants alone")
    return value.shape[0], 4


def _split(values: list[Value]) -> tuple[Value, Value, bool]:
    """Returns a tensor, a constant, and whether the constant came first."""
    first, second = values
    if isinstance(first, Constant):
        return second, first, True
    return first, second, False


def _constant_for(value: Value, given: Value) -> np.ndarray:
    channels, rank = channels_of(value)
    if isinstance(value, Means) and isinstance(given, Constant) and given.array.ndim > 2:
        rank = 4
    return by_channel(given, channels, "constant", rank)


def add(node: Node, values: list[Value]) -> Value:
    value, given, _ = _split(values)
    constant = _constant_for(value, given)
    return scaled(node, value, np.ones_like(constant), constant)


def subtract(node: Node, values: list[Value]) -> Value:
    value, given, turned = _split(values)
    constant = _constant_for(value, given)
    sign = -1.0 if turned else 1.0
    return scaled(node, value, np.full_like(constant, sign), -sign * constant)


def multiply(node: Node, values: list[Value]) -> Value:
    value, given, _ = _split(values)
    if not isinstance(given, Constant):
        raise Unsupported("multiplies two maps, as gates and attention do")
    constant = _constant_for(value, given)
    return scaled(node, value, constant, np.zeros_like(constant))


def divide(node: Node, values: list[Value]) -> Value:
    value, given, turned = _split(values)
    if turned or not isinstance(given, Constant):
        raise Unsupported("divides by a map")
    constant = _constant_for(value, given)
    if not constant.all():
        raise Unsupported("divides by 0")
    return scaled(node, value, 1 / constant, np.zeros_like(constant))


def negate(node: Node, values: list[Value]) -> Value:
    channels, _ = channels_of(values[0])
    return scaled(node, values[0], -np.ones(channels), np.zeros(channels))


def same(node: Node, values: list[Value]) -> Value:
    return values[0]


def cast(node: Node, values: list[Value]) -> Value:
    """A mask that becomes numbers is bits of 0 and 1."""
    value = values[0]
    if isinstance(value, Mask):
        zero = np.zeros(value.map.shape[0])
        return Bits(value.map.shape, node.name, value.map, value.level, zero, zero + 1)
    if node.attributes["to"] not in (1, 10, 11, 16):  # float, and halves and doubles of it
        raise Unsupported("makes whole numbers of a map")
    return value


def batch_norm(node: Node, values: list[Value]) -> Value:
    channels, _ = channels_of(values[0])
    if node.attributes.get("training_mode", 0):
        raise Unsupported("is in training mode; export the network after eval()")
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        by_channel(Constant(array(value, name).reshape(-1, 1, 1)), channels, name)
        for value, name in zip(values[1:], names, strict=True)
    )
    spread = variance + node.attributes.get("epsilon", 1e-5)
    if (spread <= 0).any():
        raise Unsupported(f"its variance[{int(np.argmax(spread <= 0))}] is not above 0")
    gain = gamma / np.sqrt(spread)
    return scaled(node, values[0], gain, beta - gain * mean)


def _bent(
    node: Node, value: Value, positive: np.ndarray | float, negative: np.ndarray | float
) -> Value:
    if not isinstance(value, Real):
        raise Unsupported("must take a map of numbers")
    function = bent(0.0, positive, negative, 0.0, value.shape[0])
    return replace(value, steps=(*value.steps, Step(node.name, function)))


def prelu(node: Node, values: list[Value]) -> Value:
    channels, rank = channels_of(values[0])
    return _bent(node, values[0], 1.0, by_channel(values[1], channels, "slope", rank))


def relu(node: Node, values: list[Value]) -> Value:
    return _bent(node, values[0], 1.0, 0.0)


def leaky_relu(node: Node, values: list[Value]) -> Value:
    return _bent(node, values[0], 1.0, node.attributes.get("alpha", 0.01))


def absolute(node: Node, values: list[Value]) -> Value:
    return _bent(node, values[0], 1.0, -1.0)


def _next(level: np.ndarray) -> np.ndarray:
    """The least number above."""
    beyond: np.ndarray = np.nextafter(level, np.inf)
    return beyond


def compare(node: Node, values: list[Value]) -> Value:
    """x >= c, x > c, x < c, x <= c, or with the constant first: a Mask, or its complement."""
    value, given, turned = _split(values)
    if not isinstance(value, Real) or not isinstance(given, Constant):
        raise Unsupported("must compare a map of numbers with a constant")
    level = _constant_for(value, given)
    kind = node.op
    if turned:
        kind = {"Greater": "Less", "Less": "Greater", "GreaterOrEqual": "LessOrEqual",
                "LessOrEqual": "GreaterOrEqual"}[kind]  # fmt: skip
    mask = Mask(value, level if kind in ("GreaterOrEqual", "Less") else _next(level))
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
    function = bent(mask.level, up, down, value, channels)
    return replace(mask.map, steps=(*known, Step(node.name, function)))


def bipolar_quant(node: Node, values: list[Value]) -> Value:
    value = values[0]
    scale = _constant_for(value, values[1])
    if isinstance(value, Pixels):
        raise Unsupported("makes bits of the image itself; use an 8-bit first convolution")
    if not isinstance(value, Real):
        raise Unsupported("must take a map of numbers")
    return Bits(value.shape, node.name, value, np.zeros(value.shape[0]), -scale, scale)


def quant(node: Node, values: list[Value]) -> Value:
    """Of 1 bit: bits. Of the image: its values, which must stay as they are."""
    value = values[0]
    scale, zero = (_constant_for(value, each) for each in values[1:3])
    width = array(values[3], "bit_width")
    signed, narrow = node.attributes.get("signed", 1), node.attributes.get("narrow", 0)
    mode = node.attributes.get("rounding_mode", "ROUND").upper()
    if width.size != 1 or (scale <= 0).any():
        raise Unsupported("needs one bit_width, and scales above 0")
    if isinstance(value, Pixels) and value.pad is None:
        if mode not in ROUNDINGS:
            raise Unsupported(f"rounds by {mode}; use one of {', '.join(ROUNDINGS)}")
        low, high = _limits(float(width.item()), signed, narrow)
        steps = (value.table / scale[:, None] + zero[:, None]).clip(low, high)
        table = (ROUNDINGS[mode](steps) - zero[:, None]) * scale[:, None]
        return replace(value, table=table)
    if float(width.item()) != 1 or not isinstance(value, Real):
        raise Unsupported(
            f"makes {width.item():g}-bit numbers; only of 1 bit, of weights or of the image is it "
            f"exact (the stream is rounded to the formats asked for)"
        )
    if signed:
        return Bits(
            value.shape, node.name, value, -zero * scale, (-1 - zero) * scale, (1 - zero) * scale
        )
    if narrow or mode not in ("ROUND", "HALF_EVEN"):
        raise Unsupported("has one value, or another rounding than ROUND")
    level = _next((0.5 - zero) * scale)  # a half is rounded to 0, the even one
    return Bits(value.shape, node.name, value, level, -zero * scale, (1 - zero) * scale)


def _limits(width: float, signed: int, narrow: int) -> tuple[float, float]:
    """The least and greatest integer, as QONNX has them."""
    if signed:
        return -(2 ** (width - 1)) + bool(narrow), 2 ** (width - 1) - 1
    return 0.0, 2**width - 1 - bool(narrow)


def multi_threshold(node: Node, values: list[Value]) -> Value:
    value = values[0]
    if not isinstance(value, Real):
        raise Unsupported("must take a map of numbers")
    levels = array(values[1], "thresholds")
    if levels.ndim != 2 or levels.shape[1] != 1:
        raise Unsupported(f"has {levels.shape[-1]} thresholds, so more than one bit")
    if node.attributes.get("data_layout", "") not in ("", "NCHW"):
        raise Unsupported(f"is of layout {node.attributes['data_layout']}; use NCHW")
    level = by_channel(Constant(levels[:, :, None]), value.shape[0], "thresholds")
    scale = np.float64(node.attributes.get("out_scale", 1.0))
    low = np.full(len(level), np.float64(node.attributes.get("out_bias", 0.0)))
    return Bits(value.shape, node.name, value, level, low, low + scale)


ELEMENTWISE: dict[str, Operator] = {
    "Sub": subtract, "Mul": multiply, "Div": divide, "Neg": negate, "Identity": same,
    "Dropout": same, "Cast": cast, "BatchNormalization": batch_norm, "PRelu": prelu, "Relu": relu,
    "LeakyRelu": leaky_relu, "Abs": absolute, "Greater": compare, "GreaterOrEqual": compare,
    "Less": compare, "LessOrEqual": compare, "Not": negate_mask, "Where": where,
    "BipolarQuant": bipolar_quant, "Quant": quant, "IntQuant": quant,
    "MultiThreshold": multi_threshold,
}  # fmt: skip
