"""Images of any size brought to the size that a network takes, as its test images were."""

import numpy as np

from plq.data.crops import center_crop
from plq.data.images import Size, resize
from plq.errors import UserError

FITS = ("square", "center")  # the whole image, squashed; the largest middle part of the same shape, less a margin


def resize_image(image: np.ndarray, shape: tuple[int, int, int], fit: str) -> np.ndarray:
    """uint8 [height, width, channels] to ``shape``; an image that has it is not changed. ``fit``: one of `FITS`.

    Raises UserError for an image of another type or number of channels.
    """
    return resize_batch(np.asarray(image)[None], shape, fit)[0]


def resize_batch(images: np.ndarray, shape: tuple[int, int, int], fit: str) -> np.ndarray:
    """uint8 [batch, height, width, channels] of any size to [batch, *shape].

    Raises UserError for images of another type or number of channels.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != shape[2] or 0 in images.shape[1:]:
        found = f"{images.dtype} {list(images.shape)}"
        raise UserError(f"images: found {found}, allowed uint8 [batch, height, width, {shape[2]}]")
    if images.shape[1:3] == shape[:2]:
        return images
    fitted = np.empty((len(images), *shape), np.uint8)
    for row, image in zip(fitted, images, strict=True):
        row[:] = _fitted(image, shape[:2], fit)
    return fitted


def _fitted(image: np.ndarray, size: Size, fit: str) -> np.ndarray:
    return center_crop(image, size) if fit == "center" else resize(image, size)
