"""The memory of feature maps: kept for the next step, and laid out channels last."""

from __future__ import annotations

import ctypes
import sys
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
NEVER = 2**31 - 1
LARGEST = 2**25  # the greatest that every version takes; greater maps go on being mapped anew


def keep() -> None:
    """Have glibc reuse the memory of large tensors. Without glibc nothing happens.

    Each step of a training frees and takes the same maps. By default each map is unmapped and
    mapped again, with a page fault for every 4 KiB.
    """
    if sys.platform != "linux":
        return
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is not None:
        setting(M_TRIM_THRESHOLD, NEVER)
        setting(M_MMAP_THRESHOLD, LARGEST)


def channels_last(model: Model) -> Model:
    """Returns the model, its weights laid out so that a pixel's channels are neighbours."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # not in torch's types
