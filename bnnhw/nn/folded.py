"""Trained modules -> the plain numbers of bnnhw.network.folded: batch norms and binary weights."""

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


def finite(where: str, values: Tensor) -> np.ndarray:
    """Returns the values as float64. Raises UserError with the first that is not finite."""
    array = values.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise UserError(f"{where}[{at}]={array.flat[at]}: must be finite; correct the model")
    return array


def fold_norm(
    name: str, norm: nn.BatchNorm2d, unit: np.ndarray | float = 1.0, *, rising: bool = False
) -> Affine:
    """Returns batch norm of acc * unit, as a function of acc. `unit` is a number or (C,).

    name : of the norm, in errors. rising : whether its gain is the magnitude of its weight.
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
    """Returns binary weights (O, I, kh, kw) of -1 and +1 as int8 (O, kh, kw, I)."""
    return np.ascontiguousarray(binary.detach().cpu().permute(0, 2, 3, 1).to(torch.int8).numpy())
