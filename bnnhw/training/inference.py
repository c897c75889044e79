"""Runs a trained network on many images, and takes batch norm's statistics anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bnnhw.datasets import Images

TEST_BATCH = 100
GPU_BATCH = 1000  # maps of the widest network, in float32, take a quarter of a GB each


@torch.inference_mode()
def classify(
    model: nn.Module, pixels: np.ndarray, step: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Returns the classes int64 (N,) that the float model gives uint8 pixels (N, H, W, C), in
    float32.

    step : is called after every batch with the number of images done.
    """
    device = next(model.parameters()).device
    size = GPU_BATCH if device.type == "cuda" else TEST_BATCH
    training = model.training
    model.eval()
    classes = []
    for start in range(0, len(pixels), size):
        batch = torch.from_numpy(pixels[start : start + size]).to(device)
        classes.append(model(batch.permute(0, 3, 1, 2)).argmax(1).cpu().numpy())
        step(start + len(batch))
    model.train(training)
    return np.concatenate(classes)


def hits(model: nn.Module, images: Images) -> float:
    """Returns how many of the images the float model knows."""
    return float((classify(model, images.pixels) == images.labels).sum())


@torch.no_grad()
def recalibrate(model: nn.Module, pixels: np.ndarray) -> None:
    """Make batch norm's running statistics the plain mean over uint8 pixels (N, H, W, C).

    In training they are a moving average over the last small batches, in bfloat16.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for start in range(0, len(pixels) // TEST_BATCH * TEST_BATCH or 1, TEST_BATCH):
        batch = torch.from_numpy(pixels[start : start + TEST_BATCH]).to(device)
        model(batch.permute(0, 3, 1, 2))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)
