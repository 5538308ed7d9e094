"""One image: bytes to pixels, and pixels to another size. Training and prediction share these."""

import io
import struct

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from plq.errors import UserError

MODES = {1: "L", 3: "RGB"}
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")  # modes; others have more
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
DAMAGED_EXIF = (*UNREADABLE, LookupError, TypeError, struct.error)
TURNS = {  # how to put upright an image of this EXIF orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF data say; as it is if they say nothing or are damaged.

    For photographs from outside: sets of images are trained on as they are stored.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DAMAGED_EXIF:
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


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
