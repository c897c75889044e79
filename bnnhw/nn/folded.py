"""What a trained layer computes in evaluation mode, as plain numpy: all that lowering reads.

Every array is float64 but for the weights; nothing here knows gradients or batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnnhw.errors import UserError


@dataclass(frozen=True)
class Affine:
    """A folded batch norm: slope * acc + offset, float64 (C,)."""

    slope: np.ndarray
    offset: np.ndarray


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

    All (O,); no slope is negative.
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
    """One binary convolution: its input to what goes on, in this order.

    thresholds : (N, I), the least input (stream, or the real output of the convolution before)
        whose bit is +1; infinite where it always or never is.
    terms : y = spatial * (sum of the terms) + offset. offset : (O,).
    spatial : (H, W) of the output, none negative; None is 1.
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


@dataclass(frozen=True)
class FoldedStem:
    """The 8-bit stem: gain[c] * acc + offset[c], acc the sum of (byte - 128) * weight.

    weights : int8 (O, 3, 3, I) in [-127, 127]; padded taps add nothing. gain, offset : (O,).
    """

    weights: np.ndarray
    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class FoldedThermometer:
    """The binary stem: a term of the bits byte >= level, and offset[c].

    levels : int (L,), rising; bit l of colour i is the term's input channel i * L + l.
    """

    levels: np.ndarray
    term: Term
    offset: np.ndarray


def finite(where: str, values: Tensor) -> np.ndarray:
    """The values as float64, or UserError naming the first that is infinite or no number."""
    array = values.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise UserError(f"{where}[{at}]={array.flat[at]}: must be finite; train the model anew")
    return array


def fold_norm(
    name: str, norm: nn.BatchNorm2d, unit: np.ndarray | float = 1.0, *, rising: bool = False
) -> Affine:
    """Batch norm of acc * unit, as a function of acc; `unit` is a number or (C,).

    name : of the norm, in errors. rising : its gain is the magnitude of its weight.
    """
    gamma, beta, mean, var = (
        finite(f"{name}.{part}", getattr(norm, part))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    if (var < 0).any():
        at = int(np.argmax(var < 0))
        raise UserError(f"{name}.running_var[{at}]={var[at]}: must not be negative")
    gain = (np.abs(gamma) if rising else gamma) / np.sqrt(var + norm.eps)
    return Affine(gain * unit, beta - gain * mean)


def bits(binary: Tensor) -> np.ndarray:
    """Binary weights (O, I, kh, kw) of -1 and +1 as int8 (O, kh, kw, I)."""
    return np.ascontiguousarray(binary.detach().cpu().permute(0, 2, 3, 1).to(torch.int8).numpy())
