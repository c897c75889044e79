"""Images to train on, to measure with and to prove on."""

from bnnhw.datasets.find import find, guess, load, suiting
from bnnhw.datasets.images import (
    RANDOM_SEED,
    SPLITS,
    Images,
    random_pixels,
    size_text,
)
from bnnhw.datasets.published import DATASETS, SHAPES
from bnnhw.datasets.source import Source
from bnnhw.datasets.splits import HELD_OUT

__all__ = [
    "DATASETS",
    "HELD_OUT",
    "RANDOM_SEED",
    "SHAPES",
    "SPLITS",
    "Images",
    "Source",
    "find",
    "guess",
    "load",
    "random_pixels",
    "size_text",
    "suiting",
]
