"""Images to train on, to measure with and to prove on."""

from bnnhw.datasets.images import (
    DATASETS,
    HELD_OUT,
    RANDOM_SEED,
    SHAPES,
    SPLITS,
    Images,
    guess,
    load,
    random_pixels,
)

__all__ = [
    "DATASETS",
    "HELD_OUT",
    "RANDOM_SEED",
    "SHAPES",
    "SPLITS",
    "Images",
    "guess",
    "load",
    "random_pixels",
]
