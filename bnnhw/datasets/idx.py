"""A directory in MNIST's layout as a data set: IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnhw.datasets.arrays import Arrays
from bnnhw.errors import UserError

FILES = {  # as MNIST, Fashion-MNIST and Kuzushiji-MNIST are published
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
BYTES = 0x08  # IDX's sign for unsigned bytes


@dataclass(frozen=True)
class Idx(Arrays):
    """The four files of MNIST's layout in a directory. Test images keep their order."""

    @classmethod
    def found_in(cls, directory: Path) -> bool:
        """Returns whether any of the files is there."""
        return any(_path(directory, file) is not None for file in FILES.values())

    def _arrays(self) -> dict[str, np.ndarray]:
        found = {}
        for name, file in FILES.items():
            path = _path(self.path, file)
            if path is None:
                raise self._fault(f"lacks {file} (or {file}.gz); put all four files there")
            found[name] = read_idx(path)
        return found


def _path(directory: Path, file: str) -> Path | None:
    """Returns where a file is, gzipped or not, or None where it is not."""
    paths = (directory / file, directory / f"{file}.gz")
    return next((path for path in paths if path.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """Returns the bytes of an IDX file as uint8, in the shape that it says.

    Raises UserError unless the file is whole.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except OSError as error:  # gzip.BadGzipFile among them
        raise UserError(f"{path}: {error.strerror or error}; give a readable file") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"{path}: not an IDX file ({error}); get it anew") from None
    values = content[4 + 4 * dimensions :]
    if zero or kind != BYTES or len(values) != math.prod(shape):
        raise UserError(
            f"{path}: not an IDX file of bytes, or cut off: {len(values)} bytes of {shape}; get it "
            f"anew"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)
