"""Images with their labels, and what a network asks of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from bnnhw.errors import UserError

RANDOM_SEED = 1
SPLITS = ("train", "validation", "test")
MOST_CLASSES = 256
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Images:
    """pixels : uint8 (N, H, W, C). labels : int64 (N,), below `classes`.

    names : a name for each class, or none at all.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: int
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Images:
        """Returns the first `count` images, or all of them for None."""
        return self.part(slice(count))

    def part(self, which: slice | np.ndarray) -> Images:
        """Returns a part of the images."""
        return Images(self.pixels[which], self.labels[which], self.classes, self.names)

    def __add__(self, more: Images) -> Images:
        """Returns these images and then those of another split of the data set."""
        pixels = np.concatenate((self.pixels, more.pixels))
        labels = np.concatenate((self.labels, more.labels))
        return Images(pixels, labels, self.classes, self.names)

    def digest(self) -> str:
        """Returns a hexadecimal digest of shape, pixels, labels and names."""
        told = hashlib.sha256(repr((self.pixels.shape, self.classes, self.names)).encode())
        told.update(self.pixels.tobytes())
        told.update(self.labels.astype(np.int64).tobytes())
        return told.hexdigest()

    def require(
        self, where: str, shape: Shape, classes: int, names: tuple[str, ...] = ()
    ) -> Images:
        """Returns these images. Raises UserError unless a network of this input takes them.

        where : the data set, for the message. names : of the network's classes, if it knows them.
        """
        if self.pixels.shape[1:] != tuple(shape):
            raise UserError(
                f"{where}: images are {size_text(self.pixels.shape[1:])}, the network takes "
                f"{size_text(shape)}; give --resize to resize them, or other data"
            )
        if self.classes != classes:
            raise UserError(
                f"{where}: has {self.classes} classes, the network {classes}; give the data it is "
                f"for"
            )
        if names and self.names and names != self.names:
            at = next(
                i
                for i, pair in enumerate(zip(names, self.names, strict=True))
                if pair[0] != pair[1]
            )
            raise UserError(
                f"{where}: class {at} is {self.names[at]!r}, the network's is {names[at]!r}; name "
                f"and order the classes as they were in its training"
            )
        return self


def size_text(shape: tuple[int, ...]) -> str:
    """Returns a shape as options have it, such as 32x32x3."""
    return "x".join(map(str, shape))


def random_pixels(shape: Shape, count: int) -> np.ndarray:
    """Returns images uint8 (count, height, width, channels), the same every time."""
    return np.random.default_rng(RANDOM_SEED).integers(0, 256, (count, *shape), np.uint8)


def check_names(where: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of all classes. Raises UserError unless these are 2 to 256 different ones.

    where : what is at fault, for the message.
    """
    if len(names) < 2:
        raise UserError(f"{where}: {len(names)} class; a network tells two or more apart")
    if len(names) > MOST_CLASSES:
        raise UserError(f"{where}: {len(names)} classes; a network has at most {MOST_CLASSES}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: two classes are named {twice!r}; give each its own name")
    return names
