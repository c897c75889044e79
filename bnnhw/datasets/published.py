"""Data sets of known names: CIFAR-10/100 in their python layout, scikit-learn's digits."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw.datasets.images import SPLITS, Images, Shape
from bnnhw.datasets.source import Source
from bnnhw.datasets.splits import HELD_OUT
from bnnhw.errors import UserError

_RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's own function, of whatever version
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}


@dataclass(frozen=True)
class _Layout:
    """The files of a published CIFAR directory, and where their labels are."""

    folder: str
    train: tuple[str, ...]
    test: str
    labels: bytes
    names: bytes
    classes: int


_CIFAR = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        b"labels",
        b"label_names",
        10,
    ),
    "cifar100": _Layout(
        "cifar-100-python", ("train",), "test", b"fine_labels", b"fine_label_names", 100
    ),
}
_META = {"cifar10": "batches.meta", "cifar100": "meta"}
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


def _read_names(path: Path, layout: _Layout) -> tuple[str, ...]:
    """Returns the names of the classes, or none where the set came without its file of names."""
    if not path.exists():
        return ()
    try:
        with path.open("rb") as file:
            names = _ArrayUnpickler(file, encoding="bytes").load()[layout.names]
        found = tuple(bytes(name).decode() for name in names)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path}: no names of classes ({error}); unpack the data set anew"
        ) from None
    if len(found) != layout.classes:
        raise UserError(f"{path}: names {len(found)} classes, must be {layout.classes}")
    return found


@dataclass(frozen=True)
class Cifar(Source):
    """name : cifar10 or cifar100. directory : where its files are, or that directory's parent."""

    name: str
    directory: Path | None

    def size(self, shape: Shape | None = None) -> tuple[Shape, int]:
        return shape or SHAPES[self.name][0], SHAPES[self.name][1]

    @classmethod
    def found_in(cls, directory: Path) -> list[str]:
        """Returns the names of the CIFAR sets that are in a directory."""
        return [
            name
            for name, layout in _CIFAR.items()
            if (directory / layout.folder).is_dir()
            or all((directory / file).is_file() for file in (layout.train[0], layout.test))
        ]

    def read(self, split: str, shape: Shape | None) -> Images:
        layout, directory = _CIFAR[self.name], self.directory
        if directory is None:
            raise UserError(
                f"no data: give --data with the {layout.folder} directory; "
                f"python -m bnnhw.data downloads it"
            )
        if (directory / layout.folder).is_dir():
            directory = directory / layout.folder
        files = (layout.test,) if split == "test" else layout.train
        parts = [_read_batch(directory / name, layout) for name in files]
        pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        names = _read_names(directory / _META[self.name], layout)
        images = Images(pixels, labels, layout.classes, names)
        if split == "test":
            return images
        if len(labels) <= HELD_OUT:
            raise UserError(
                f"{directory}: {len(labels)} training images, more than {HELD_OUT} are needed"
            )
        return images.part(slice(-HELD_OUT, None) if split == "validation" else slice(-HELD_OUT))


class Digits(Source):
    """1,797 images of 8x8x1 that come with scikit-learn.

    A fixed shuffle gives 1,257 images for training, 180 held out and 360 for the test.
    """

    name = "digits"

    def size(self, shape: Shape | None = None) -> tuple[Shape, int]:
        return shape or SHAPES[self.name][0], SHAPES[self.name][1]

    def read(self, split: str, shape: Shape | None) -> Images:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = np.minimum(images * 16, 255).astype(np.uint8).reshape(-1, 8, 8, 1)
        order = np.random.default_rng(0).permutation(len(labels))
        parts = dict(zip(SPLITS, np.split(order, (1257, 1437)), strict=True))
        names = tuple(map(str, range(10)))
        return Images(pixels, labels.astype(np.int64), 10, names).part(parts[split])
