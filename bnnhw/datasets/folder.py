"""A folder of images as a data set: each class is a folder in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnhw.datasets import splits
from bnnhw.datasets.images import Images, Shape, check_names
from bnnhw.datasets.resize import stacked
from bnnhw.datasets.source import Source
from bnnhw.errors import UserError

KINDS = (".png", ".jpg", ".jpeg")
Files = list[tuple[Path, int]]
"""Images with their labels."""


@dataclass(frozen=True)
class Folder(Source):
    """Class folders of PNG and JPEG files, or train/ and test/ (and validation/) of such.

    Classes are in the order of their folders' names, of numbers in that of numbers. What is not
    given is split off by a fixed seed, each class by itself. Every split is shuffled by it.
    Gray images are (H, W, 1). Where some of a data set are in colour, all are (H, W, 3).
    """

    name: str
    path: Path

    def size(self, shape: Shape | None = None) -> tuple[Shape, int]:
        classes = len(self.classes())
        if shape is None:
            height, width, channels = self.read("train", None).pixels.shape[1:]
            shape = (height, width, channels)
        return shape, classes

    def read(self, split: str, shape: Shape | None) -> Images:
        names = self.classes()
        files = self._files(split, names)
        where = [str(file) for file, _ in files]
        pixels = stacked(where, [read_image(file) for file, _ in files], shape)
        labels = np.array([label for _, label in files], np.int64)
        return Images(pixels, labels, len(names), names)

    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes. All parts that are given must have the same."""
        names = _class_names(self.path / "train" if self._parted else self.path)
        for part in self._parts - {"train"}:
            other = set(_class_names(self.path / part)) ^ set(names)
            if other:
                raise UserError(
                    f"{self.path}: only one of train and {part} has the class {min(other)!r}; give "
                    f"both the same classes"
                )
        return names

    @property
    def _parted(self) -> bool:
        return all((self.path / part).is_dir() for part in ("train", "test"))

    @property
    def _parts(self) -> set[str]:
        """The splits that are given as folders."""
        if not self._parted:
            return set()
        return {part for part in ("train", "validation", "test") if (self.path / part).is_dir()}

    def _files(self, split: str, names: tuple[str, ...]) -> Files:
        given = self._parts
        cut = not given or ("validation" not in given and split != "test")
        folder = self.path / ("train" if cut else split) if given else self.path
        found = [
            (file, label)
            for label, name in enumerate(names)
            for file in _image_files(folder / name)
        ]
        chosen = np.random.default_rng(splits.SEED).permutation(len(found))
        if cut:
            labels = np.array([label for _, label in found])
            shares = splits.TRAINING if given else splits.WHOLE
            chosen = splits.split(str(folder), labels, len(names), shares)[split]
        return [found[at] for at in chosen]


def _class_names(folder: Path) -> tuple[str, ...]:
    """Returns the names of the class folders in their order."""
    entries = [entry for entry in _entries(folder) if entry.is_dir()]
    loose = [file for file in _entries(folder) if file.suffix.lower() in KINDS and file.is_file()]
    if loose:
        raise UserError(
            f"{loose[0]}: an image outside of the class folders; move it into its class"
        )
    if not entries:
        raise UserError(
            f"{folder}: no class folders of PNG or JPEG images, and none of CIFAR's or MNIST's "
            f"files; give the directory that holds either"
        )
    names = [entry.name for entry in entries]
    number = all(name.isdecimal() for name in names)
    return check_names(str(folder), tuple(sorted(names, key=int if number else None)))


def _entries(folder: Path) -> Iterator[Path]:
    """Yields what is in a folder by name, without hidden files."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; give a readable folder") from None
    yield from (entry for entry in entries if not entry.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    files = list(_entries(folder))
    for file in files:
        if file.suffix.lower() not in KINDS or not file.is_file():
            raise UserError(f"{file}: neither PNG nor JPEG; a class folder holds images only")
    if not files:
        raise UserError(f"{folder}: no images in it; remove the folder or fill it")
    return files


def read_image(path: Path) -> np.ndarray:
    """Returns a PNG or JPEG as uint8 (H, W, 1 or 3), turned as its EXIF data say.

    Raises UserError for what 8 bits of gray or colour do not hold.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            if getattr(file, "n_frames", 1) > 1:
                raise UserError(f"{path}: an animation; give single images")
            image = _plain(path, ImageOps.exif_transpose(file))
    except UserError:
        raise
    except Exception as error:  # a damaged image can raise nearly anything
        reason = "it is not one" if type(error).__name__ == "UnidentifiedImageError" else error
        raise UserError(f"{path}: cannot be read as PNG or JPEG ({reason}); replace it") from None
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _plain(path: Path, image: Any) -> Any:
    """Returns a Pillow image of mode L or RGB with the same pixels."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        if opaque.getchannel("A").getextrema()[0] < 255:
            raise UserError(f"{path}: has transparent pixels; flatten it onto a background")
        return image.convert("L" if image.mode == "LA" else "RGB")
    kept = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
    if image.mode not in kept:
        raise UserError(f"{path}: is of mode {image.mode}; give 8-bit gray or RGB")
    return image.convert(kept[image.mode])
