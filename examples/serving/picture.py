"""An uploaded picture -> pixels as the network takes them. What it costs is known before anything is decoded."""

import io

import numpy as np
from PIL import Image

from plq.data.images import UNREADABLE, is_deep, open_image, pixels, upright
from plq.errors import UserError
from plq.runtime.frozen import FrozenModel

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class Refused(UserError):
    """One line for the sender of a picture, and the status of HTTP that goes with it."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def network_input(data: bytes, model: FrozenModel, max_pixels: int) -> np.ndarray:
    """uint8 [height, width, channels] of the model, upright, brought to its size as its test images were.

    Raises Refused for what is no picture, or a larger one.
    """
    check(data, max_pixels)
    try:
        image = open_image(data, "image")
    except UserError as error:
        raise Refused(400, str(error)) from error
    return model.fitted(pixels(upright(image), model.image_shape[2]))


def check(data: bytes, max_pixels: int) -> None:
    """Raise Refused by what the first bytes say: format, size, depth. Names and declared types do not count."""
    if not data:
        raise Refused(400, "image: found no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Refused(413, f"image: far more pixels than the {max_pixels:,} allowed") from error
    except UNREADABLE as error:
        raise Refused(415, f"image: found no picture, allowed {', '.join(FORMATS)}") from error
    if image.width * image.height > max_pixels:
        raise Refused(413, f"image: found {image.width}x{image.height} pixels, allowed {max_pixels:,} in all")
    if is_deep(image):
        raise Refused(415, f"image: found mode {image.mode}, allowed 8 bits per channel")
