"""What every data set can do."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from bnnhw.datasets.images import SPLITS, Images, Shape
from bnnhw.datasets.resize import resized
from bnnhw.errors import UserError


class Source(ABC):
    """A data set that can be read. It has no images in memory.

    name : what a training records of it.
    """

    name: str

    @abstractmethod
    def size(self, shape: Shape | None = None) -> tuple[Shape, int]:
        """Returns height, width and channels of an image, and the number of classes.

        shape : what the images are resized to.
        """

    @abstractmethod
    def read(self, split: str, shape: Shape | None) -> Images:
        """Returns the images of a split, of any size or of `shape`."""

    def load(self, split: str = "test", shape: Shape | None = None) -> Images:
        """Returns the images of a split: train, validation (held out of training) or test.

        shape : resize the images to this height, width and channels. None leaves them as they are.
        Raises UserError, naming the file, for what cannot be read.
        """
        if split not in SPLITS:
            raise UserError(f"split={split!r}: choose one of {', '.join(SPLITS)}")
        images = self.read(split, shape)
        if shape is None or images.pixels.shape[1:] == tuple(shape):
            return images
        try:
            pixels = np.stack([resized(image, shape) for image in images.pixels])
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        return Images(pixels, images.labels, images.classes, images.names)

    def fitting(
        self, split: str, shape: Shape, classes: int, *, resize: bool = False,
        names: tuple[str, ...] = (),
    ) -> Images:  # fmt: skip
        """Returns the images of a split that a network of this input and class count takes.

        resize : resize images of another size, which are refused without. names : of the network's
            classes, if it knows them. Raises UserError as `load` and `Images.require` do.
        """
        images = self.load(split, shape if resize else None)
        return images.require(self.name, shape, classes, names)
