"""An .npz as a data set."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnhw.datasets import splits
from bnnhw.datasets.images import MOST_CLASSES, Images, Shape, check_names
from bnnhw.datasets.source import Source
from bnnhw.errors import UserError

REMEDY = "save it with np.savez(FILE, x=..., y=...)"
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Arrays(Source):
    """A file of numpy.savez with x and y, or with x_train, y_train, x_test and y_test.

    x : uint8 (N, H, W, C), or (N, H, W) for one channel. y : whole numbers (N,) from 0 on.
    names : a name for each class; without it there are as many as the greatest label says.
    x_validation, y_validation : else a part of the training images is held out.
    x and y are split by a fixed seed, each class by itself. Test images given keep their order.
    """

    name: str
    path: Path

    def size(self, shape: Shape | None = None) -> tuple[Shape, int]:
        pairs, classes, _ = self._content()
        height, width, channels = next(iter(pairs.values()))[0].shape[1:]
        return shape or (height, width, channels), classes

    def read(self, split: str, shape: Shape | None) -> Images:
        pairs, classes, names = self._content()
        whole = "" in pairs
        cut = whole or ("validation" not in pairs and split != "test")
        pixels, labels = pairs["" if whole else "train" if cut else split]
        images = Images(pixels, labels, classes, names)
        if not cut:
            return images
        shares = splits.WHOLE if whole else splits.TRAINING
        return images.part(splits.split(str(self.path), labels, classes, shares)[split])

    def _content(self) -> tuple[Pairs, int, tuple[str, ...]]:
        """Returns (pixels, labels) of "" or of each split given, the classes and their names."""
        found = self._arrays()
        if ("x" in found) == ("x_train" in found):
            raise self._fault(
                f"give either x and y or x_train, y_train, x_test and y_test; {REMEDY}"
            )
        parts = [""] if "x" in found else ["train", "test"]
        parts += ["validation"] if "x_validation" in found and "x_train" in found else []
        pairs = {part: self._pair(found, f"_{part}" if part else "") for part in parts}
        first = next(iter(pairs.values()))[0].shape[1:]
        for part, (pixels, _) in pairs.items():
            if pixels.shape[1:] != first:
                raise self._fault(f"x_{part} is {pixels.shape}, x_train has images of {first}")
        greatest = max(int(labels.max()) for _, labels in pairs.values())
        if greatest >= MOST_CLASSES and "names" not in found:
            raise self._fault(
                f"a label is {greatest}; a network has at most {MOST_CLASSES} classes, so labels "
                f"go from 0 to {MOST_CLASSES - 1}"
            )
        names = self._names(found.get("names"))
        classes = len(names) or greatest + 1
        if greatest >= classes:
            raise self._fault(f"a label is {greatest}, but there are {classes} names")
        if classes < 2:
            raise self._fault("all labels are 0; a network tells two or more classes apart")
        trained = next(iter(pairs.values()))[1]
        absent = np.setdiff1d(np.arange(classes), trained)
        if len(absent):
            raise self._fault(f"no training image has the label {absent[0]}; number classes from 0")
        return pairs, classes, names

    def _arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays of the file. None is unpickled."""
        if self.path.is_file() and not zipfile.is_zipfile(self.path):
            raise self._fault(f"not an .npz, or cut off; {REMEDY}")
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files if name in KNOWN}
        except OSError as error:
            raise self._fault(f"{error.strerror or error}; {REMEDY}") from None
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise self._fault(
                    "refused, it holds pickled objects, which can carry code; save plain uint8 and "
                    "integer arrays"
                ) from None
            raise self._fault(f"damaged or not an .npz ({error}); {REMEDY}") from None
        except Exception as error:  # a damaged archive can raise nearly anything
            raise self._fault(f"damaged or not an .npz ({error}); {REMEDY}") from None

    def _pair(self, found: dict[str, np.ndarray], suffix: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns x as uint8 (N, H, W, C) and y as int64 (N,)."""
        for name in (f"x{suffix}", f"y{suffix}"):
            if name not in found:
                raise self._fault(f"{name} is missing; {REMEDY}")
        x, y = found[f"x{suffix}"], found[f"y{suffix}"]
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or not x.size:
            raise self._fault(
                f"x{suffix} is {x.dtype} {x.shape}, must be uint8 (N, height, width, channels)"
            )
        if y.dtype.kind not in "iu" or y.shape != (len(x),):
            raise self._fault(
                f"y{suffix} is {y.dtype} {y.shape}, must be {len(x)} whole numbers, one an image"
            )
        if y.min() < 0:
            raise self._fault(f"y{suffix} has the label {y.min()}; labels go from 0 on")
        return x if x.ndim == 4 else x[..., None], y.astype(np.int64)

    def _names(self, names: np.ndarray | None) -> tuple[str, ...]:
        if names is None:
            return ()
        if names.ndim != 1 or names.dtype.kind != "U":
            raise self._fault(f"names is {names.dtype} {names.shape}, must be a list of text")
        return check_names(f"{self.path}: names", tuple(map(str, names)))

    def _fault(self, what: str) -> UserError:
        return UserError(f"{self.path}: {what}")


KNOWN = {
    "names",
    *(f"{kind}{part}" for kind in "xy" for part in ("", "_train", "_validation", "_test")),
}
