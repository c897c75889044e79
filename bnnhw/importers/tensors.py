"""The tensors of a foreign file under our names: taken once each, faults collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnhw.errors import UserError

IGNORED = ("num_batches_tracked",)


@dataclass(frozen=True)
class Affine:
    """gain * x + offset, both (C,)."""

    gain: np.ndarray
    offset: np.ndarray


class Tensors:
    """A state dict whose tensors are taken by our names.

    names : our name -> theirs; the longest prefix at a dot counts. dropped : prefixes that all of
    the state's names may share.
    """

    def __init__(
        self, state: Mapping[str, Any], names: dict[str, str], dropped: tuple[str, ...]
    ) -> None:
        self._names = names
        self._missing: list[str] = []
        self._state = dict(state)
        for prefix in dropped:
            if self._state and all(name.startswith(prefix) for name in self._state):
                self._state = {k.removeprefix(prefix): v for k, v in self._state.items()}
        self._taken: set[str] = set()

    def theirs(self, name: str) -> str:
        """Returns the state's name for one of ours."""
        head, tail = name, ""
        while head:
            if head in self._names:
                return self._names[head] + tail
            head, dot, last = head.rpartition(".")
            tail = f"{dot}{last}{tail}"
        return name

    def has(self, name: str) -> bool:
        """Whether the state has this one of our names."""
        return self.theirs(name) in self._state

    def take(self, name: str, shape: tuple[int, ...], *, spread: bool = False) -> np.ndarray:
        """Returns a tensor as float64; zeros where it is missing, which `check` tells.

        spread : whether one value stands for all, as that of a PReLU with one slope.
        """
        theirs = self.theirs(name)
        if theirs not in self._state:
            self._missing.append(theirs if theirs == name else f"{theirs} (our {name})")
            return np.zeros(shape)
        self._taken.add(theirs)
        given = self._state[theirs]
        given = given.detach().cpu().double().numpy() if hasattr(given, "detach") else given
        array = np.asarray(given, np.float64)
        if array.size == np.prod(shape, dtype=int) and array.squeeze().shape == tuple(
            size for size in shape if size != 1
        ):
            array = array.reshape(shape)
        elif spread and array.size == 1:
            array = np.broadcast_to(array.reshape(()), shape)
        else:
            raise UserError(f"{theirs}: is of shape {array.shape}, must be {shape} (our {name})")
        if not np.isfinite(array).all():
            at = int(np.argmin(np.isfinite(array)))
            raise UserError(f"{theirs}[{at}]={array.flat[at]}: must be finite")
        return array

    def optional(self, name: str, shape: tuple[int, ...], default: float) -> np.ndarray:
        """Returns a tensor, or this value in its place."""
        return self.take(name, shape) if self.has(name) else np.full(shape, default)

    def check(self) -> None:
        """Raises UserError with every name that is missing and every one that nothing took."""
        left = sorted(set(self._state) - self._taken)
        left = [name for name in left if name.rpartition(".")[2] not in IGNORED]
        told = [f"missing: {', '.join(self._missing)}"] if self._missing else []
        told += [f"unknown: {', '.join(left)}"] if left else []
        if told:
            raise UserError(f"state dict: {'; '.join(told)}; docs/import.md has the names")


def identity(channels: int) -> Affine:
    """Returns what changes nothing."""
    return Affine(np.ones(channels), np.zeros(channels))


def affine(
    tensors: Tensors, name: str, channels: int, eps: float, *, optional: bool = False
) -> Affine | None:
    """Returns a batch norm of running statistics; None where it may be missing and is.

    A norm without weight and bias has 1 and 0.
    """
    if optional and not tensors.has(f"{name}.running_var"):
        return None
    gamma = tensors.optional(f"{name}.weight", (channels,), 1.0)
    beta = tensors.optional(f"{name}.bias", (channels,), 0.0)
    mean = tensors.take(f"{name}.running_mean", (channels,))
    variance = tensors.take(f"{name}.running_var", (channels,))
    if (variance < 0).any():
        at = int(np.argmax(variance < 0))
        raise UserError(f"{tensors.theirs(name)}.running_var[{at}]={variance[at]}: is negative")
    gain = gamma / np.sqrt(variance + eps)
    return Affine(gain, beta - gain * mean)
