"""One image: bytes to pixels, and pixels to another size. Training and prediction share these."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from plq.errors import UserError

MODES = {1: "L", 3: "RGB"}
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def open_image(data: bytes, source: str) -> Image.Image:
    """A decoded image of any mode. Raises UserError, naming ``source``, if it cannot be read."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        raise UserError(f"{source}: not a readable image (of no known format)") from error
    except UNREADABLE as error:
        raise UserError(f"{source}: not a readable image ({error})") from error
    return image


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 [height, width, channels] with 1 (grey) or 3 (RGB) channels, converted if need be."""
    converted = np.asarray(image.convert(MODES[channels]))
    return converted[:, :, None] if channels == 1 else converted


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [height, width, 1 or 3] squared to [size, size, same], bilinear."""
    if image.shape[:2] == (size, size):
        return image
    channels = image.shape[2]
    flat = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return np.asarray(flat.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)
