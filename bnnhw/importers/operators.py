"""The operations of ONNX on what tensors are: the elementwise ones of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bnnhw.importers.graph import Node
from bnnhw.importers.values import (
    Bits,
    Clipped,
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
    if isinstance(value, Clipped):
        raise Unsupported("takes a map that is clipped, of which only bits can be made")
    raise Unsupported("takes what is no map")


def channels_of(value: Value) -> tuple[int, int]:
    """Returns channels and rank of a tensor that has them."""
    if isinstance(value, Mask | Clipped):
        return value.map.shape[0], 4
    if isinstance(value, Means):
        return len(value.gain), 2
    if isinstance(value, Logits):
        return len(value.bias), 2
    if isinstance(value, Constant):
        raise Unsupported("takes constants alone")
    return value.shape[0], 4


def split(values: list[Value]) -> tuple[Value, Value, bool]:
    """Returns a tensor, a constant, and whether the constant came first."""
    first, second = values
    if any(isinstance(value, Clipped) for value in values):
        raise Unsupported("takes a map that is clipped, of which only bits can be made")
    if isinstance(first, Constant):
        return second, first, True
    if not isinstance(second, Constant):
        raise Unsupported("computes with two maps, which only an addition to a shortcut does")
    return first, second, False


def constant_for(value: Value, given: Value) -> np.ndarray:
    channels, rank = channels_of(value)
    if isinstance(value, Means) and isinstance(given, Constant) and given.array.ndim > 2:
        rank = 4
    return by_channel(given, channels, "constant", rank)


def add(node: Node, values: list[Value]) -> Value:
    value, given, _ = split(values)
    constant = constant_for(value, given)
    return scaled(node, value, np.ones_like(constant), constant)


def subtract(node: Node, values: list[Value]) -> Value:
    value, given, turned = split(values)
    constant = constant_for(value, given)
    sign = -1.0 if turned else 1.0
    return scaled(node, value, np.full_like(constant, sign), -sign * constant)


def multiply(node: Node, values: list[Value]) -> Value:
    if not any(isinstance(value, Constant) for value in values):
        raise Unsupported("multiplies two maps, as gates and attention do")
    value, given, _ = split(values)
    constant = constant_for(value, given)
    return scaled(node, value, constant, np.zeros_like(constant))


def divide(node: Node, values: list[Value]) -> Value:
    value, given, turned = split(values)
    if turned:
        raise Unsupported("divides by a map")
    constant = constant_for(value, given)
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


ELEMENTWISE: dict[str, Operator] = {
    "Sub": subtract, "Mul": multiply, "Div": divide, "Neg": negate, "Identity": same,
    "Dropout": same, "Cast": cast, "BatchNormalization": batch_norm, "PRelu": prelu, "Relu": relu,
    "LeakyRelu": leaky_relu, "Abs": absolute,
}  # fmt: skip
