"""Image sets by name, as arrays in memory: ``digits``, or any prepared TFDS set with an image and a label."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from plq.data import prepared
from plq.data.arrays import require_memory
from plq.data.cache import cached
from plq.data.digits import TRAIN_EXAMPLES, load_digits
from plq.data.images import Size, resize, size_of
from plq.errors import UserError, nearest
from plq.storage.cache_dir import cache_directory

CACHE_FORMAT = 2  # raised when decoding, resizing or what is refused changes
USUAL_SPLITS = {
    "svhn_cropped": ("train+extra", "test"),
    "imagenette": ("train", "validation"),
    "imagenet2012": ("train", "validation"),
}


@dataclasses.dataclass(frozen=True)
class Split:
    """images: uint8 [N, height, width, channels], perhaps memory-mapped. labels: int32 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class SetInfo:
    """A set's classes, in the order of their labels, and the number of examples of its splits.

    fingerprint: of its files, by which a run that goes on knows them; "" where a version stands for them.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, int]
    fingerprint: str = ""


def default_splits(name: str) -> tuple[str, str]:
    """The training and the test split that the field uses."""
    return USUAL_SPLITS.get(name.split("/")[0], ("train", "test"))


def describe(name: str, data_dir: str = "") -> SetInfo:
    """What the set holds. Raises UserError if it is not there."""
    if name == "digits":
        return SetInfo(name, tuple(map(str, range(10))), {part: len(_digits(part).labels) for part in _DIGITS})
    builder = prepared.open_set(name, data_dir)
    return SetInfo(name, prepared.class_names(builder), prepared.split_sizes(builder))


def load_split(
    name: str, split: str, image_size: int | tuple[int, ...] = 0, data_dir: str = "", cache_dir: str = ""
) -> Split:
    """A whole split, decoded and, if ``image_size`` is not 0, resized to that height and width.

    Args:
        image_size: one number for both, or two (`size_of`).
        split: TFDS syntax, such as "train+extra" or "train[:90%]"; digits have "train" and "test".
        data_dir: of TFDS; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        cache_dir: for decoded arrays; empty: $PLQ_CACHE_DIR, else plq in the user's cache folder.
    Raises UserError for whatever is missing, damaged, empty or too large to hold in memory.
    """
    size = size_of(image_size)
    if name == "digits":
        return _resized(_digits(split), size)
    builder = prepared.open_set(name, data_dir)
    _require_memory(builder, split, size)
    key = {
        "format": CACHE_FORMAT,
        "set": builder.info.full_name,
        "split": split,
        "size": size,
        "files": _fingerprint(Path(str(builder.data_path))),
    }
    make = lambda: prepared.read_arrays(builder, split, size)
    return Split(*cached(cache_directory(cache_dir), name.replace("/", "-"), key, make))


_DIGITS = {"train": slice(0, TRAIN_EXAMPLES), "test": slice(TRAIN_EXAMPLES, None)}


def _digits(split: str) -> Split:
    if split not in _DIGITS:
        raise UserError(f"split {split!r} of digits: unknown; {nearest(split, _DIGITS)}")
    images, labels = load_digits()
    return Split(images[_DIGITS[split]], labels[_DIGITS[split]])


def _resized(split: Split, size: Size | None) -> Split:
    return Split(np.stack([resize(image, size) for image in split.images]), split.labels) if size else split


def _require_memory(builder: Any, split: str, size: Size | None) -> None:
    height, width, channels = prepared.image_shape(builder)
    rows, columns = size or (height or 0, width or 0)
    examples = prepared.split_examples(builder, split)
    require_memory(f"split {split!r} of {builder.name}", examples, (rows, columns, channels))


def _fingerprint(folder: Path) -> list[tuple[str, int, int]]:
    """Changes when any file of the set is written again."""
    stats = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.is_file()}
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()]
