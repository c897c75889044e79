"""What a tensor of a foreign graph is, as far as it can become part of a FoldedNetwork.

A map's shape is (C, H, W); there is one image. All arrays are float64, (C,) unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bnnhw.network.folded import FoldedActivation, after_affine, before_affine

Shape = tuple[int, int, int]


class Unsupported(Exception):
    """Why an operation cannot become part of a network; who catches it knows which one."""


@dataclass(frozen=True, eq=False)
class Step:
    """An elementwise function of a map, by channel. node : the operation that it comes from."""

    node: str
    function: FoldedActivation

    @property
    def affine(self) -> bool:
        return bool((self.function.positive == self.function.negative).all())


def affine(gain: np.ndarray, offset: np.ndarray) -> FoldedActivation:
    """Returns gain * x + offset."""
    return after_affine(None, gain, offset)


def bent(
    at: np.ndarray | float, positive: np.ndarray | float, negative: np.ndarray | float,
    out: np.ndarray | float, channels: int,
) -> FoldedActivation:  # fmt: skip
    """Returns slope * (x - at) + out, of two slopes; numbers count for all channels."""
    parts = (np.broadcast_to(part, (channels,)) for part in (at, positive, negative, out))
    return FoldedActivation(*(np.array(part, np.float64) for part in parts))


def at_zero(function: FoldedActivation) -> tuple[np.ndarray, np.ndarray]:
    """Returns gain and offset of a function that is affine."""
    return function.positive, function.shift_out - function.positive * function.shift_in


@dataclass(frozen=True)
class Reduced:
    """Steps as one: activation(gain * x + offset)."""

    gain: np.ndarray
    offset: np.ndarray
    activation: FoldedActivation | None

    @property
    def identity(self) -> bool:
        plain = self.activation is None and (self.gain == 1).all() and (self.offset == 0).all()
        return bool(plain)

    def function(self) -> FoldedActivation:
        """Returns all of it as one activation."""
        return after_affine(self.activation, self.gain, self.offset)


def reduced(steps: tuple[Step, ...], channels: int) -> Reduced:
    """Returns the steps as one. Raises Unsupported where they bend a channel twice."""
    gain, offset = np.ones(channels), np.zeros(channels)
    act: FoldedActivation | None = None
    for step in steps:
        if step.affine:
            a, b = at_zero(step.function)
            if act is None:
                gain, offset = a * gain, a * offset + b
            else:
                act = before_affine(act, a, b)
        elif act is None:
            act = step.function
        else:
            act = _bent_again(step, act)
    return Reduced(gain, offset, act)


def _bent_again(step: Step, act: FoldedActivation) -> FoldedActivation:
    """The activation, then the step, where each channel is bent by no more than one of them."""
    straight = act.positive == act.negative
    second = step.function
    bends = second.positive != second.negative
    if (bends & ~straight).any():
        at = int(np.argmax(bends & ~straight))
        raise Unsupported(f"{step.node} bends channel {at} again, which has two slopes already")
    first = before_affine(act, *at_zero_where(second, ~bends))
    then = after_affine(second, *at_zero_where(act, straight))
    parts = ("shift_in", "positive", "negative", "shift_out")
    return FoldedActivation(
        *(np.where(bends, getattr(then, part), getattr(first, part)) for part in parts)
    )


def at_zero_where(act: FoldedActivation, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns gain and offset where the activation is affine, else 1 and 0."""
    gain, offset = at_zero(act)
    return np.where(where, gain, 1.0), np.where(where, offset, 0.0)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The image. table : (C, 256), the value that stands for each byte.

    pad : the value of padded pixels; None where there are none yet.
    """

    shape: Shape
    table: np.ndarray
    pad: float | None = None


@dataclass(frozen=True, eq=False)
class Stem:
    """The real 3x3 convolution of the image. weights : (O, C, 3, 3). bias : (O,)."""

    node: str
    pixels: Pixels
    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Convolved:
    """The 3x3 convolution of bits. weights : (O, I, 3, 3), real. bias : (O,)."""

    node: str
    bits: Bits
    weights: np.ndarray
    bias: np.ndarray
    stride: int


@dataclass(frozen=True, eq=False)
class Moved:
    """The stream as a shortcut brings it to another shape.

    stream : a map that is a Stem's or a Sum's. kind : "pad" takes pixels, "average" means of 2x2.
    strides : of rows and columns.
    source : int (O,), which channel of the stream goes where; -1 is none, which is 0.
    weights : (O, I) of a 1x1 convolution, or None; bits : whether it is one of the stream's bits.
    """

    node: str
    stream: Real
    kind: str
    strides: tuple[int, int]
    source: np.ndarray
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None
    bits: Bits | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """A convolution's map and the stream's, added."""

    node: str
    branch: Real
    shortcut: Real


@dataclass(frozen=True, eq=False)
class Real:
    """A map of numbers: what was made of `root`, one step after the other."""

    shape: Shape
    root: Stem | Convolved | Moved | Sum
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Clipped:
    """A map between two bounds, of which only bits can be made."""

    map: Real
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Mask:
    """Where a map reaches a level of its channel: x >= level; below : or where it does not."""

    map: Real
    level: np.ndarray
    below: bool = False


@dataclass(frozen=True, eq=False)
class Bits:
    """A map of two values by channel: high where x >= level, else low. pad : of padded ones."""

    shape: Shape
    node: str
    map: Real
    level: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pad: float | None = None


@dataclass(frozen=True, eq=False)
class Means:
    """gain * mean + offset, of a whole map, by channel."""

    map: Real
    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True, eq=False)
class Logits:
    """weights @ mean + bias, (classes, C) and (classes,)."""

    node: str
    map: Real
    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that is no map."""

    array: np.ndarray = field(repr=False)


Value = Pixels | Real | Clipped | Mask | Bits | Means | Logits | Constant
