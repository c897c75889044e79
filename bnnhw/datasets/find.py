"""Which data set is meant: by its name, by what is at a path, or by what a network takes."""

from __future__ import annotations

from pathlib import Path

from bnnhw.datasets.arrays import Arrays
from bnnhw.datasets.folder import Folder
from bnnhw.datasets.idx import Idx
from bnnhw.datasets.images import Images, Shape, size_text
from bnnhw.datasets.published import DATASETS, SHAPES, Cifar, Digits
from bnnhw.datasets.source import Source
from bnnhw.errors import UserError

USUAL = "cifar10"


def find(
    data: str | Path | None = None, dataset: str | None = None, prefer: str | None = None
) -> Source:
    """Returns the data set at `data`, of the name `dataset` if that is given.

    data : a folder of images in class folders, an .npz, a directory with CIFAR's or MNIST's files,
        or one of DATASETS. Digits need none.
    prefer : the name to take where `data` does not decide.
    Raises UserError for an unknown name, and for one that is not what is at `data`.
    """
    if data is not None and str(data) in DATASETS and not Path(data).exists():
        data, prefer = None, str(data)
        if dataset not in (None, prefer):
            raise UserError(f"--data {prefer}: is not the data set {dataset}; give that one's")
    if data is None or dataset in DATASETS:
        return _published(dataset or prefer or USUAL, None if data is None else Path(data))
    source = _at(Path(data), prefer)
    if dataset not in (None, source.name):
        raise UserError(f"{data}: is the data set {source.name!r}, wanted is {dataset!r}")
    return source


def _published(name: str, path: Path | None) -> Source:
    if name == "digits":
        return Digits()
    if name in DATASETS:
        return Cifar(name, path)
    raise UserError(
        f"dataset={name!r}: choose one of {', '.join(DATASETS)}, or give --data with a folder of "
        f"images or an .npz"
    )


def _at(path: Path, prefer: str | None) -> Source:
    """Returns the data set at a path. Where both CIFAR sets are it is the preferred one."""
    if path.suffix == ".npz" or path.is_file():
        return Arrays(_own_name(path.resolve().stem), path)
    known = Cifar.found_in(path)
    if known:
        return Cifar(prefer if prefer in known else known[0], path)
    if Idx.found_in(path):
        return Idx(_own_name(path.resolve().name), path)
    return Folder(_own_name(path.resolve().name), path)


def _own_name(name: str) -> str:
    """Returns a name that none of DATASETS has."""
    return f"{name}-images" if name in DATASETS else name


def load(
    dataset: str | None,
    data: str | Path | None = None,
    split: str = "test",
    shape: Shape | None = None,
) -> Images:
    """Returns the images of a split of a data set that `find` finds. See Source.load."""
    return find(data, dataset).load(split, shape)


def guess(shape: Shape, classes: int) -> str:
    """Returns the data set that a network of this input (H, W, C) and class count was made for."""
    for dataset, known in SHAPES.items():
        if known == (tuple(shape), classes):
            return dataset
    raise UserError(
        f"no data set that comes along has images of {size_text(shape)} in {classes} classes; give "
        f"--data with a folder of images or an .npz"
    )


def suiting(
    shape: Shape, classes: int, data: str | Path | None = None, dataset: str | None = None
) -> Source:
    """Returns the data set for a network of this input and class count, as `find` does."""
    prefer = next(
        (name for name, known in SHAPES.items() if known == (tuple(shape), classes)), None
    )
    if data is None and dataset is None and prefer is None:
        guess(shape, classes)  # raises
    return find(data, dataset, prefer)
