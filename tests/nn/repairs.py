"""Repairs to try networks with: every method alone, and random combinations."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np

from bnnhw.errors import UserError
from bnnhw.network.repair import BASELINE, CATEGORIES, Repair

LOSSES = ("teacher_student", "regularization")  # nothing of them is in a network
LAYERS = [category for category in CATEGORIES if category.name not in LOSSES]


def alone() -> list[Repair]:
    """Every method on the study's baseline."""
    return [
        replace(BASELINE, **{category.name: value})
        for category in LAYERS
        for value in list(category.values)[1:]
    ]


def combination(seed: int) -> Repair:
    """The first legal one of random choices in every category."""
    generator = np.random.default_rng(seed)
    while True:
        chosen = {c.name: generator.choice(list(c.values)).item() for c in LAYERS}
        with suppress(UserError):
            return Repair(**chosen)


BEFORE = [
    replace(BASELINE, activation=kind, activation_position="before-add")
    for kind in ("prelu", "rprelu", "maxout")
]
COMBINED = [combination(seed) for seed in range(20)]
REPAIRS = [Repair(), BASELINE, *alone(), *BEFORE, *COMBINED]


def name(repair: Repair) -> str:
    return "-".join(map(str, repair.changes().values())) or "baseline"
