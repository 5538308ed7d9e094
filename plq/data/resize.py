"""Images of any size brought to the size that a network takes, as its test images were."""

import numpy as np

from plq.data.crops import center_crop
from plq.data.images import resize
from plq.errors import UserError

FITS = ("square", "center")  # the whole image squared; its middle, after the shorter side was resized


def resize_image(image: np.ndarray, size: int, fit: str) -> np.ndarray:
    """uint8 [height, width, channels] to [size, size, channels]. ``fit``: one of `FITS`."""
    return center_crop(image, size) if fit == "center" else resize(image, size)


def resize_batch(images: np.ndarray, shape: tuple[int, int, int], fit: str) -> np.ndarray:
    """uint8 [batch, height, width, channels] of any size to [batch, *shape].

    Raises UserError for images of another type or number of channels.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != shape[2]:
        found = f"{images.dtype} {list(images.shape)}"
        raise UserError(f"images: found {found}, allowed uint8 [batch, height, width, {shape[2]}]")
    if images.shape[1:3] == shape[:2]:
        return images
    return np.stack([resize_image(image, shape[0], fit) for image in images])
