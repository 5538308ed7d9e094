"""Photographs from their bytes, fast: simplejpeg and OpenCV where they are installed, else Pillow.

Both ways decode to the same pixels and refuse the same files: what simplejpeg cannot do or refuses (CMYK, PNG, a
warning of libjpeg) goes to Pillow, and Pillow decides. Only resizing differs, by a grey level or two. EXIF
orientation is ignored here, as it is where the published figures come from; `orientation` tells it.
"""

import importlib
import io
from typing import Any

import numpy as np
from PIL import Image

from plq.data.images import UNREADABLE, UPRIGHT, Size, is_deep, open_image, orientation_of, pixels, too_deep
from plq.errors import UserError

SHRINKS = (8, 4, 2)  # what libjpeg does fast while decoding; 7/8 to 5/8 take longer than the whole image
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG"
ORIENTED = {  # a file that starts like this says how it is turned only if one of these is in it
    JPEG: (b"Exif\0", b"Orientation"),
    PNG: (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"),
}
COLOURS = ("YCbCr", "RGB", "Gray")  # which both decode alike; CMYK differs by a grey level


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


simplejpeg = _optional("simplejpeg")
cv2 = _optional("cv2")
if cv2:
    cv2.setNumThreads(1)  # images are spread over threads, one each


def image_size(data: bytes, source: str) -> tuple[int, int]:
    """Height and width from the header alone. Raises UserError, naming ``source``, if there is none."""
    if simplejpeg and simplejpeg.is_jpeg(data):
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            return height, width
        except ValueError:
            pass  # Pillow reads it, or says what is wrong
    width, height = _open(data, source).size
    return height, width


def mode_and_format(data: bytes, source: str) -> tuple[str, str]:
    """In Pillow's words, from the header alone. Raises UserError, naming ``source``, if there is none."""
    image = _open(data, source)
    return image.mode, image.format or ""


def orientation(data: bytes, source: str) -> int:
    """That of the EXIF data, 1 to 8. Raises UserError, naming ``source``, if it is no readable image.

    A JPEG or PNG without any is not opened; other formats are decoded, as some turn the image while they do so.
    """
    kind = next((kind for kind in ORIENTED if data.startswith(kind)), None)
    if kind and not any(mark in data for mark in ORIENTED[kind]):
        return UPRIGHT
    return orientation_of(_open(data, source) if kind == JPEG else open_image(data, source))


def shrink_factor(height: int, width: int, min_side: int) -> int:
    """By how much (1, 2, 4, 8) decoding may shrink an image and leave ``min_side`` pixels; 1 if that is 0."""
    fitting = (factor for factor in SHRINKS if min_side and min(height, width) >= min_side * factor)
    return next(fitting, 1)


def decode_rgb(data: bytes, source: str, min_side: int = 0) -> np.ndarray:
    """uint8 [height, width, 3] of a JPEG or whatever else Pillow reads.

    Args:
        source: what the bytes are, for the message.
        min_side: if not 0, a JPEG is decoded at 1/2, 1/4 or 1/8 where its shorter side keeps this many pixels.
    Raises UserError if the bytes cannot be read.
    """
    if simplejpeg and simplejpeg.is_jpeg(data):
        try:
            return _decode_simplejpeg(data, min_side)
        except ValueError:
            pass  # Pillow reads it, or says what is wrong
    return _decode_pillow(data, source, min_side)


def _decode_simplejpeg(data: bytes, min_side: int) -> np.ndarray:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    if colours not in COLOURS:
        raise ValueError(colours)
    factor = shrink_factor(height, width, min_side)
    return simplejpeg.decode_jpeg(data, min_height=-(-height // factor), min_width=-(-width // factor))


def _decode_pillow(data: bytes, source: str, min_side: int) -> np.ndarray:
    image = _open(data, source)
    width, height = image.size
    factor = shrink_factor(height, width, min_side)
    try:
        if factor > 1:
            image.draft("RGB", (width // factor, height // factor))  # does nothing but to a JPEG
        return pixels(image, 3)
    except UNREADABLE as error:
        raise _unreadable(source, error) from error


def _open(data: bytes, source: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except UNREADABLE as error:
        raise _unreadable(source, error) from error
    if is_deep(image):
        raise too_deep(image, source)
    return image


def _unreadable(source: str, error: BaseException) -> UserError:
    reason = str(error).split(" <_io")[0].strip() or type(error).__name__
    return UserError(f"{source}: not a readable image ({reason})")


def resize_rgb(image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [height, width, 3] to (height, width): bilinear, and area averages where it shrinks to half or less.

    Between one half and the whole, area averages would cost as much time as decoding.
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    if not cv2:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    halved = image.shape[0] >= 2 * height and image.shape[1] >= 2 * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if halved else cv2.INTER_LINEAR)


def mirror_rgb(image: np.ndarray) -> np.ndarray:
    """Left and right exchanged, uint8 [height, width, 3]; OpenCV takes a twentieth of NumPy's time for the copy."""
    return cv2.flip(image, 1) if cv2 else image[:, ::-1]
