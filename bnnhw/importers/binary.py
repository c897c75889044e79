"""Real weights of a foreign layer as signs or bytes, and functions of a map as thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnhw.importers.values import Bits, Convolved, Unsupported
from bnnhw.network.folded import FoldedActivation, padded_taps
from bnnhw.network.operations import INT8_MAX

SAME = 1e-5  # of their own size, by which weights of one value may differ
WHOLE = 1e-4  # of a step, by which weights on a grid may differ from it


def finite(weights: np.ndarray) -> None:
    """Raises Unsupported where a weight is not."""
    if not np.isfinite(weights).all():
        at = tuple(int(each) for each in np.argwhere(~np.isfinite(weights))[0])
        raise Unsupported(f"its weights{[*at]}={weights[at]}: must be finite")


def whole(weights: np.ndarray, *, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8 multiples of a unit, and that unit (rows,) or (1,): (O, ...) -> the same.

    It is the largest unit that all weights are multiples of, within [-127, 127]. Where there is
    none it is the greatest magnitude / 127, and the multiples are rounded.
    rows : whether each row has its own.
    """
    finite(weights)
    flat = weights.reshape(len(weights) if rows else 1, -1)
    greatest = np.abs(flat).max(1, keepdims=True)
    unit = np.where(greatest > 0, greatest / INT8_MAX, 1.0)
    for count in range(INT8_MAX, 0, -1):
        steps = flat / np.where(greatest > 0, greatest / count, 1.0)
        fits = np.abs(steps - np.round(steps)).max(1, keepdims=True) <= WHOLE
        unit = np.where(fits & (greatest > 0), greatest / count, unit)
    return np.round(flat / unit).astype(np.int8).reshape(weights.shape), unit.reshape(-1)


@dataclass(frozen=True)
class Binary:
    """A convolution of bits (+-1): sum of (gain * signs + mean) * bit, plus offset and border.

    signs : int8 (O, 3, 3, I). gain, mean, offset : (O,). border : as Folded.border; None is 0.
    minus_one : whether padded bits are -1; else they add nothing.
    """

    signs: np.ndarray
    gain: np.ndarray
    mean: np.ndarray
    offset: np.ndarray
    border: np.ndarray | None
    minus_one: bool


def binary(part: Convolved) -> Binary:
    """Returns a convolution by its bits alone, whatever two values they stand for."""
    bits = part.bits
    distance, centre = (bits.high - bits.low) / 2, (bits.high + bits.low) / 2
    real = part.weights * distance[None, :, None, None]
    signs, gain, mean = two_valued(real)
    offset = part.bias + (part.weights * centre[None, :, None, None]).sum((1, 2, 3))
    assert bits.pad is not None
    missing = centre - bits.pad  # of a padded tap that counts as no bit
    scale = np.abs(distance).max() + np.abs(centre).max()
    zero = np.abs(missing) <= SAME * scale
    minus_one = not zero.all() and _close(bits.pad, bits.low, scale) and not mean.any()
    if minus_one and (distance > 0).all():
        return Binary(signs, gain, mean, offset, None, True)
    border = None
    if not zero.all():
        border = -padded_taps(part.weights * missing[None, :, None, None])
    return Binary(signs, gain, mean, offset, border, False)


def _close(value: float, others: np.ndarray, scale: float) -> bool:
    return bool((np.abs(value - others) <= SAME * scale).all())


def two_valued(real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns signs, gains and means: each output's weights are mean + or - gain."""
    finite(real)
    flat = real.reshape(len(real), -1)
    low, high = flat.min(1, keepdims=True), flat.max(1, keepdims=True)
    near = SAME * (np.abs(low) + np.abs(high))
    upper = np.abs(flat - high) <= np.abs(flat - low)
    if (np.abs(flat - np.where(upper, high, low)) > near).any():
        at = int(np.argmax((np.abs(flat - np.where(upper, high, low)) > near).any(1)))
        count = len(np.unique(flat[at]))
        raise Unsupported(f"its weights of output {at} have {count} values; binary ones have two")
    one = high - low <= near  # all alike: all +, or all -
    gain = np.where(one, np.abs(high), (high - low) / 2)[:, 0]
    mean = np.where(one | (np.abs(high + low) <= near), 0.0, (high + low) / 2)[:, 0]
    signs = np.where(np.where(one, flat >= 0, upper), 1, -1).astype(np.int8).reshape(real.shape)
    return np.ascontiguousarray(signs.transpose(0, 2, 3, 1)), gain, mean


def thresholds(bits: Bits, function: FoldedActivation) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least x whose bit is 1, and where it is the least whose bit is 0: both (C,).

    function : of x, what is compared with the bits' level. Raises Unsupported where it rises and
    falls.
    """
    up, down = function.positive, function.negative
    falls = (up <= 0) & (down <= 0) & ((up < 0) | (down < 0))
    if (~falls & ((up < 0) | (down < 0))).any():
        at = int(np.argmax(~falls & ((up < 0) | (down < 0))))
        raise Unsupported(
            f"channel {at} rises and falls with the stream, so no threshold makes its bit; put the "
            f"activation on the stream itself"
        )
    distance = np.where(falls, -1.0, 1.0) * (bits.level - function.shift_out)
    right = np.where(falls, distance >= 0, distance > 0)  # of the bend
    slope = np.abs(np.where(right, up, down))
    crossing = function.shift_in + distance / np.where(slope > 0, slope, 1.0)
    crossing = np.where(slope > 0, crossing, np.where(right, np.inf, -np.inf))
    beyond = np.where(np.isfinite(crossing), np.nextafter(crossing, np.inf), crossing)
    return np.where(falls, beyond, crossing), falls
