"""Images of one size out of images of many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnnhw.datasets.images import Shape, size_text
from bnnhw.errors import UserError

LUMA = np.array([299, 587, 114])  # of red, green and blue in gray, of a thousand (ITU-R BT.601)


def resized(image: np.ndarray, shape: Shape) -> np.ndarray:
    """Returns uint8 (H, W, C) of another size.

    Each channel is resized by Pillow's bilinear filter, which takes means where it makes smaller.
    Gray becomes colour by repeating it, colour gray by its luma, rounded.
    Raises UserError for other counts of channels.
    """
    from PIL import Image

    height, width, channels = shape
    if image.shape[:2] != (height, width):
        planes = [
            Image.fromarray(np.ascontiguousarray(image[..., at])).resize(
                (width, height), Image.Resampling.BILINEAR
            )
            for at in range(image.shape[2])
        ]
        image = np.stack([np.asarray(plane) for plane in planes], axis=2)
    if image.shape[2] == channels:
        return image
    if image.shape[2] == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] == 3 and channels == 1:
        gray: np.ndarray = ((image @ LUMA + 500) // 1000).astype(np.uint8)[..., None]
        return gray
    raise UserError(
        f"{image.shape[2]} channels cannot become {channels}; only gray and colour become each "
        f"other"
    )


def stacked(where: Sequence[str], images: Sequence[np.ndarray], shape: Shape | None) -> np.ndarray:
    """Returns uint8 (N, H, W, C) of images (H, W, 1 or 3), resized to `shape` if there is one.

    Without one, all must have one size, and gray becomes colour where some are in colour.
    where : the name of each image, for the message.
    """
    if shape is not None:
        return np.stack([resized(image, shape) for image in images])
    height, width = images[0].shape[:2]
    for name, image in zip(where, images, strict=True):
        if image.shape[:2] != (height, width):
            mine, first = size_text(image.shape[:2]), size_text((height, width))
            raise UserError(
                f"{name}: is {mine}, {where[0]} is {first}; give images of one size, or --resize"
            )
    channels = max(image.shape[2] for image in images)
    return np.stack([resized(image, (height, width, channels)) for image in images])
