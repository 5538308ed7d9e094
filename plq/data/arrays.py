"""Whole sets in memory: images decoded into one array, if they fit."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from plq.errors import UserError

MAX_BYTES = 16 * 2**30
Encoded = tuple[bytes, int, str]  # an image's bytes, its label, and its name in messages


def require_memory(what: str, examples: int, shape: tuple[int, int, int]) -> None:
    """Raise UserError if so many images of this shape are more than `MAX_BYTES`."""
    height, width, channels = shape
    needed = examples * height * width * channels
    if needed > MAX_BYTES:
        found = f"{needed / 2**30:.0f} GiB decoded, allowed {MAX_BYTES / 2**30:.0f} GiB in memory"
        raise UserError(f"{what}: {found}; data.crop reads images as they are needed")


def stacked(
    name: str, count: int, chunks: Iterable[Sequence[Encoded]], decode: Callable[[bytes, str], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, height, width, channels] and int64 labels [count], decoded by several threads.

    Raises UserError, with ``name`` as that of the set, for images of unequal size.
    """
    images: np.ndarray | None = None
    labels = np.empty(count, np.int64)
    start = 0
    with ThreadPoolExecutor() as pool:
        for chunk in chunks:
            decoded = list(pool.map(lambda one: decode(one[0], one[2]), chunk))
            if images is None:
                images = np.empty((count, *decoded[0].shape), np.uint8)
            _require_shape(name, images.shape[1:], decoded)
            stop = start + len(decoded)
            images[start:stop], labels[start:stop] = decoded, [label for _, label, _ in chunk]
            start = stop
    assert images is not None and start == count, "an empty split is refused before"
    return images, labels


def _require_shape(name: str, shape: tuple[int, ...], images: list[np.ndarray]) -> None:
    other = next((image.shape for image in images if image.shape != shape), None)
    if other:
        raise UserError(f"data.name={name}: images of {shape} and {other}; set data.image_size to bring them to one")
