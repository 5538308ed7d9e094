"""Where a photograph is cropped: boxes chosen from its size alone, and the pixels inside them.

Each crop is a function from a random generator, height, width and the wanted size to a `Box`, so that the box is
known before anything is decoded and a large image can be decoded at a fraction of its size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from plq.data.images import SIDEWAYS, UPRIGHT, Size, resize, turned
from plq.data.jpeg import decode_rgb, image_size, mirror_rgb, orientation, resize_rgb

TRIES = 10


class Box(NamedTuple):
    """Part of an image, in its pixels; at least one, and never outside."""

    top: int
    left: int
    height: int
    width: int


Crop = Callable[[np.random.Generator, int, int, Size], Box]  # (rng, height, width, size)


def random_resized_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    size: Size,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A share of the area, uniform, and width / height, log-uniform; the middle if ten tries do not fit.

    ``aspect``: of width / height, as a multiple of that of ``size``.
    """
    low, high = math.log(aspect[0]), math.log(aspect[1])
    shape = size[1] / size[0]
    for _ in range(TRIES):
        target, ratio = height * width * rng.uniform(*area), math.exp(rng.uniform(low, high)) * shape
        box_height, box_width = round(math.sqrt(target / ratio)), round(math.sqrt(target * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = rng.integers(0, (height - box_height + 1, width - box_width + 1)).tolist()
            return Box(top, left, box_height, box_width)
    narrow, wide = (ratio * shape for ratio in aspect)
    return _middle(height, width, min(height, width / narrow), min(width, height * wide))


def authors_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    size: Size,
    shorter: tuple[float, float] = (1.0, 308 / 224),
    aspect_jitter: tuple[float, float] = (0.85, 1.15),
) -> Box:
    """As AlexNet is trained for EXP-Net and DoReFa: scale at random, then crop ``size`` pixels at random.

    The image is scaled so that the side that is shorter in comparison with ``size`` gets a uniform length of
    ``shorter`` times that of ``size``; then height and width are each scaled by a factor of their own from
    ``aspect_jitter``. Neither is enlarged, except to ``size`` where it is smaller.
    """
    sides, length = (height, width), rng.uniform(*shorter)
    scale = max(wanted * length / side for wanted, side in zip(size, sides, strict=True))
    scaled = [
        max(wanted, min(side, side * scale * rng.uniform(*aspect_jitter)))
        for wanted, side in zip(size, sides, strict=True)
    ]
    (top, box_height), (left, box_width) = (
        _span(side, side * wanted / new, side * (new - wanted) / new * rng.uniform())
        for side, wanted, new in zip(sides, size, scaled, strict=True)
    )
    return Box(top, left, box_height, box_width)


def center_box(height: int, width: int, size: Size) -> Box:
    """The middle: 224 / 256 of the largest box of the shape of ``size``; all of an image that has this size."""
    if (height, width) == size:
        return Box(0, 0, height, width)
    share = size[0] / (size[0] * 256 / 224)
    largest = min(height, width * size[0] / size[1]), min(width, height * size[1] / size[0])
    return _middle(height, width, *(side * share for side in largest))


def whole_center(rng: np.random.Generator, height: int, width: int, size: Size) -> Box:
    """The crop of the evaluation, for training without randomness."""
    return center_box(height, width, size)


CROPS: dict[str, Crop] = {"resized": random_resized_box, "authors": authors_box, "center": whole_center}


def _middle(height: int, width: int, box_height: float, box_width: float) -> Box:
    (top, rows), (left, columns) = (
        _span(side, box, (side - round(box)) / 2) for side, box in ((height, box_height), (width, box_width))
    )
    return Box(top, left, rows, columns)


def _span(side: int, length: float, start: float) -> tuple[int, int]:
    """Start and length in whole pixels, inside ``side``."""
    whole = min(side, max(1, round(length)))
    return min(side - whole, max(0, round(start))), whole


def cut(image: np.ndarray, box: Box, size: Size) -> np.ndarray:
    """uint8 [*size, channels]: the inside of the box, resized. The image has 1 or 3 channels."""
    inside = image[box.top : box.top + box.height, box.left : box.left + box.width]
    return resize_rgb(inside, size) if image.shape[2] == 3 else resize(inside, size)


def decode_crop(
    data: bytes, source: str, size: Size, choose: Callable[[int, int], Box], exif: bool = False
) -> np.ndarray:
    """uint8 [*size, 3]: the box that ``choose`` takes from height and width, decoded no larger than it needs.

    ``exif``: whether the image is turned as its EXIF data say, as `upright` does it, and height and width with it.
    Raises UserError, naming ``source``, if the bytes cannot be read.
    """
    height, width = image_size(data, source)
    turn = orientation(data, source) if exif else UPRIGHT
    if turn in SIDEWAYS:
        height, width = width, height
    box = choose(height, width)
    needed = math.ceil(max(min(height, width) * side / part for side, part in zip(size, box[2:], strict=True)))
    image = turned(decode_rgb(data, source, needed), turn)
    return cut(image, _scaled(box, image.shape[0] / height, image.shape[1] / width, image.shape), size)


def _scaled(box: Box, rows: float, columns: float, shape: tuple[int, ...]) -> Box:
    if rows == columns == 1:
        return box
    top, height = _span(shape[0], box.height * rows, box.top * rows)
    left, width = _span(shape[1], box.width * columns, box.left * columns)
    return Box(top, left, height, width)


def random_resized_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    size: Size,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """uint8 [height, width, 3] to [*size, 3], as `random_resized_box`."""
    return cut(image, random_resized_box(rng, image.shape[0], image.shape[1], size, area, aspect), size)


def authors_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    size: Size,
    shorter: tuple[float, float] = (1.0, 308 / 224),
    aspect_jitter: tuple[float, float] = (0.85, 1.15),
) -> np.ndarray:
    """uint8 [height, width, 3] to [*size, 3], as `authors_box`."""
    return cut(image, authors_box(rng, image.shape[0], image.shape[1], size, shorter, aspect_jitter), size)


def center_crop(image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [height, width, 1 or 3] to [*size, same], as `center_box`."""
    return cut(image, center_box(image.shape[0], image.shape[1], size), size)


def flip(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The image, or, half of the time, its mirror image."""
    return mirror_rgb(image) if rng.random() < 0.5 else image
