"""Splits images by a fixed seed, each class by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnnhw.errors import UserError

HELD_OUT = 5_000
SEED = 0
TEST = 0.2  # of all images where no test images are given
VALIDATION = 0.1  # of all images, or of the training images where test images are given
WHOLE = dict(test=TEST, validation=VALIDATION)
TRAINING = dict(validation=VALIDATION)


def split(
    where: str, labels: np.ndarray, classes: int, shares: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Returns the indices of each split: of `shares`, and `train` for what is left.

    labels : int (N,). shares : part of each class's images, of which one at least is taken. A split
    has at most HELD_OUT images, but one of each class.
    The order within a split is shuffled. The same labels are split the same way every time.
    Raises UserError for a class that has too few images.
    """
    generator = np.random.default_rng(SEED)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*shares, "train")}
    for label in range(classes):
        order = generator.permutation(np.flatnonzero(labels == label))
        if len(order) <= len(shares):
            raise UserError(
                f"{where}: class {label} has {len(order)} images; at least {len(shares) + 1} are "
                f"needed for train, {' and '.join(shares)}"
            )
        for name, share in shares.items():
            most = share * len(order) * min(1.0, HELD_OUT / (share * len(labels)))
            taken = max(1, round(most))
            found[name].append(order[:taken])
            order = order[taken:]
        found["train"].append(order)
    return {name: generator.permutation(np.concatenate(parts)) for name, parts in found.items()}
