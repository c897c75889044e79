"""Files as a network's images, and the names of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from bnnhw.errors import UserError

MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
CLASSES = {  # by height, width, channels and number of classes
    (8, 8, 1, 10): tuple("0123456789"),
    (32, 32, 3, 10): (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
}  # fmt: skip


def class_names(shape: tuple[int, int, int], classes: int) -> tuple[str, ...]:
    """Returns the names of the classes of the data set for such images; without one, numbers."""
    known = CLASSES.get((*shape, classes))
    return known or tuple(f"class {index}" for index in range(classes))


def read_image(path: Path, shape: tuple[int, int, int], *, resize: bool = False) -> np.ndarray:
    """Returns a picture file as uint8 (H, W, C).

    resize : whether another size is brought to the network's; else it is refused. Colours are
    brought to the network's channels: 1 is grey, 3 are red, green, blue.
    Raises UserError, naming the file, where it is none or does not fit.
    """
    height, width, channels = shape
    if channels not in MODES:
        raise UserError(f"{path}: the network's images have {channels} channels, files 1 or 3")
    try:
        with Image.open(path) as file:
            picture = file.convert(MODES[channels])
    except UnidentifiedImageError:
        raise UserError(f"{path}: no picture; give a PNG or JPEG file") from None
    except (OSError, Image.DecompressionBombError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise UserError(f"{path}: {reason}; give a PNG or JPEG file") from None
    if picture.size != (width, height):
        if not resize:
            raise UserError(
                f"{path}: is {picture.width}x{picture.height} pixels, the network's images are "
                f"{width}x{height}; give --resize to scale it"
            )
        picture = picture.resize((width, height), Image.Resampling.BOX)
    return np.asarray(picture, np.uint8).reshape(shape)


def softmax(logits: tuple[int, ...], step: float = 1.0) -> np.ndarray:
    """Returns the shares of the classes, float (classes,); step : of a logit's last bit."""
    scaled = np.array(logits, float) * step
    shares = np.exp(scaled - scaled.max())
    result: np.ndarray = shares / shares.sum()
    return result
