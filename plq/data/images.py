"""One image: bytes to pixels, and pixels to another size. Training and prediction share these."""

import io
import re
import struct
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from plq.errors import UserError

Size = tuple[int, int]  # height and width

MODES = {1: "L", 3: "RGB"}
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")  # modes; others have more
DEEP = re.compile(";16[BLN]")  # what Pillow calls 16 bits per channel where it drops the lower 8 of them
EXACT = {("1", "L"), ("1", "RGB"), ("L", "RGB"), ("P", "RGB")}  # conversions that lose nothing but transparency
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
DAMAGED_EXIF = (*UNREADABLE, LookupError, TypeError, struct.error)
UPRIGHT = 1
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
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
    """A decoded image of any mode of `EIGHT_BITS`.

    Raises UserError, naming ``source``, if it cannot be read or has more than 8 bits per channel.
    """
    try:
        image = Image.open(io.BytesIO(data))
        deep = is_deep(image)
        image.load()
    except UnidentifiedImageError as error:
        raise UserError(f"{source}: not a readable image (of no known format)") from error
    except UNREADABLE as error:
        raise UserError(f"{source}: not a readable image ({error})") from error
    if deep:
        raise too_deep(image, source)
    return image


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image, not yet decoded, has more than 8 bits per channel, which Pillow would clip or drop."""
    return image.mode not in EIGHT_BITS or any(DEEP.search(str(tile[3])) for tile in image.tile)


def too_deep(image: Image.Image, source: str) -> UserError:
    """The one line about an image that `is_deep`."""
    found = f"{image.mode}, 16 bits per channel" if image.mode in EIGHT_BITS else image.mode
    return UserError(f"{source}: image mode {found}, allowed 8 bits per channel")


def upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF data say; as it is if they say nothing or are damaged.

    For photographs from outside: sets of TFDS are trained on as they are stored.
    """
    orientation = orientation_of(image)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def orientation_of(image: Image.Image) -> int:
    """What the EXIF data say of how the image is turned; 1, upright, if they say nothing known or are damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DAMAGED_EXIF:
        return UPRIGHT
    return orientation if orientation in TURNS else UPRIGHT


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """uint8 [height, width, 3] put upright, as `upright` does it."""
    return np.asarray(Image.fromarray(image).transpose(TURNS[orientation])) if orientation in TURNS else image


def photograph(data: bytes, source: str, channels: int) -> np.ndarray:
    """uint8 [height, width, channels] of an image from outside, upright.

    Raises UserError, naming ``source``, if it cannot be read or has more than 8 bits per channel.
    """
    return pixels(upright(open_image(data, source)), channels)


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 [height, width, channels] with 1 (grey) or 3 (RGB) channels, converted if need be.

    A conversion that loses something (colour, transparency) is said in a warning, once per mode.
    """
    wanted = MODES[channels]
    if image.mode != wanted and ((image.mode, wanted) not in EXACT or "transparency" in image.info):
        warnings.warn(f"images of mode {image.mode} are converted to {wanted}", stacklevel=2)
    converted = np.asarray(image.convert(wanted))
    return converted[:, :, None] if channels == 1 else converted


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [height, width, 1 or 3] to [*size, same], bilinear; an image of that size as it is."""
    if image.shape[:2] == size:
        return image
    (height, width), channels = size, image.shape[2]
    flat = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return np.asarray(flat.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, channels)


def size_of(image_size: Any) -> Size | None:
    """Height and width, of both or of the one number that both are; None for 0, which keeps the size.

    Raises UserError for anything else.
    """
    if type(image_size) is int and image_size == 0:
        return None
    sides = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        allowed = "allowed one number, or height and width as 24,32, each 1 or more; 0 keeps the size"
        raise UserError(f"data.image_size={image_size}: {allowed}")
    return sides[0], sides[1]
