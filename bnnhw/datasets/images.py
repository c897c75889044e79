"""Data sets as bytes: CIFAR-10/100 in their published python layout, scikit-learn's digits."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw.errors import UserError

HELD_OUT = 5_000
RANDOM_SEED = 1
SPLITS = ("train", "validation", "test")
_RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's own function, of whatever version
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}


@dataclass(frozen=True)
class Images:
    """pixels : uint8 (N, H, W, C). labels : int64 (N,), below `classes`."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Images:
        """Returns the first `count` images, or all of them for None."""
        return self.part(slice(count))

    def part(self, which: slice) -> Images:
        """Returns a part of the images."""
        return Images(self.pixels[which], self.labels[which], self.classes)

    def __add__(self, more: Images) -> Images:
        """Returns these images and then those of another split of the data set."""
        pixels = np.concatenate((self.pixels, more.pixels))
        return Images(pixels, np.concatenate((self.labels, more.labels)), self.classes)


def random_pixels(shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Returns images uint8 (count, height, width, channels), the same every time."""
    return np.random.default_rng(RANDOM_SEED).integers(0, 256, (count, *shape), np.uint8)


@dataclass(frozen=True)
class _Layout:
    """The files of a published CIFAR directory, and where their labels are."""

    folder: str
    train: tuple[str, ...]
    test: str
    labels: bytes
    classes: int


_CIFAR = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        b"labels",
        10,
    ),
    "cifar100": _Layout("cifar-100-python", ("train",), "test", b"fine_labels", 100),
}
SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "digits": ((8, 8, 1), 10),
}
DATASETS = tuple(SHAPES)


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds plain containers and numpy arrays. It refuses anything else in the file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which image data never needs")
        return _ALLOWED[module, name]


def _read_batch(path: Path, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    """Returns one file's pixels uint8 (N, 32, 32, 3) and labels int64 (N,)."""
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
        pixels = np.asarray(batch[b"data"])
        labels = np.asarray(batch[layout.labels])
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; give the directory that holds "
            f"{', '.join((*layout.train, layout.test))}"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path}: not a CIFAR batch ({error}); unpack the data set anew") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or not len(pixels):
        raise UserError(f"{path}: data is {pixels.dtype} {pixels.shape}, must be uint8 (N, 3072)")
    if labels.dtype.kind not in "iu" or labels.shape != (len(pixels),):
        raise UserError(f"{path}: {len(pixels)} images need as many whole-number labels")
    if labels.min() < 0 or labels.max() >= layout.classes:
        raise UserError(f"{path}: labels must lie in 0 to {layout.classes - 1}")
    pixels = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), labels.astype(np.int64)


def _cifar(layout: _Layout, directory: Path | None, split: str) -> Images:
    if directory is None:
        raise UserError(
            f"no data: give --data with the {layout.folder} directory; "
            f"python -m bnnhw.data downloads it"
        )
    if (directory / layout.folder).is_dir():
        directory = directory / layout.folder
    names = (layout.test,) if split == "test" else layout.train
    parts = [_read_batch(directory / name, layout) for name in names]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if split != "test":
        if len(labels) <= HELD_OUT:
            raise UserError(
                f"{directory}: {len(labels)} training images, more than {HELD_OUT} are needed"
            )
        chosen = slice(-HELD_OUT, None) if split == "validation" else slice(-HELD_OUT)
        pixels, labels = pixels[chosen], labels[chosen]
    return Images(pixels, labels, layout.classes)


def _digits(split: str) -> Images:
    """Returns a split of 1,797 images of 8x8x1.

    A fixed shuffle gives 1,257 images for training, 180 held out and 360 for the test.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.minimum(images * 16, 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = dict(zip(SPLITS, np.split(order, (1257, 1437)), strict=True))
    chosen = parts[split]
    return Images(pixels[chosen], labels[chosen].astype(np.int64), 10)


def load(dataset: str, directory: str | Path | None = None, split: str = "test") -> Images:
    """Returns the images of a split: train, validation (held out of the training images) or test.

    directory : where a CIFAR set is, or its parent. Digits come with scikit-learn.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r}: choose one of {', '.join(SPLITS)}")
    if dataset == "digits":
        return _digits(split)
    if dataset not in _CIFAR:
        raise UserError(f"dataset={dataset!r}: choose one of {', '.join(DATASETS)}")
    return _cifar(_CIFAR[dataset], None if directory is None else Path(directory), split)


def guess(shape: tuple[int, int, int], classes: int) -> str:
    """Returns the data set that a network of this input (H, W, C) and class count was made for."""
    for dataset, known in SHAPES.items():
        if known == (shape, classes):
            return dataset
    raise UserError(
        f"no data set has images of {'x'.join(map(str, shape))} in {classes} classes; "
        f"name one with --dataset ({', '.join(DATASETS)})"
    )
