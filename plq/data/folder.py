"""The pictures of a folder as a set: its splits, in memory or one by one. `plq.data.folder_opening` makes it."""

import dataclasses
import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from plq.data.arrays import Encoded, require_memory, stacked
from plq.data.cache import cached
from plq.data.folder_layout import TEST, VALIDATION
from plq.data.images import Size, photograph, resize
from plq.data.sets import SetInfo, Split
from plq.data.splits import spans
from plq.data.survey import Facts, read_file
from plq.errors import UserError, printable

FOLDER = "folder"  # as data.name
FOLDER_FORMAT = 1  # raised when decoding or resizing changes
GREY = ("1", "L", "LA")  # modes; a set of nothing else has one channel
NAMED = 3  # how many files a message names
CHUNK = 1000  # images decoded at a time
NUMBER = re.compile(r"\d+(?![\d%])")  # of examples, not of percent


@dataclasses.dataclass(frozen=True)
class Picture:
    """One readable image. label: the place of its class among the names, sorted."""

    name: str
    label: int
    facts: Facts


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The pictures by split, in an order that their names alone decide.

    unreadable: what is wrong with each file that cannot be read. ignored: how many other files there are, by kind.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, tuple[Picture, ...]]
    unreadable: tuple[str, ...]
    ignored: Counter[str]
    cache: Path

    @property
    def info(self) -> SetInfo:
        return SetInfo(FOLDER, self.class_names, self.sizes, self.fingerprint)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of pictures of each split."""
        return {split: len(pictures) for split, pictures in self.splits.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Of names, labels and bytes of all pictures in all splits; not of times, nor of where the folder is."""
        return _digest([self.class_names, {split: _identities(some) for split, some in self.splits.items()}])

    @cached_property
    def channels(self) -> int:
        """1 if all images are grey, else 3."""
        modes = {picture.facts.mode for pictures in self.splits.values() for picture in pictures}
        return 1 if modes <= set(GREY) else 3

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, channels]; 0 where it varies."""
        sizes = [(one.facts.height, one.facts.width) for pictures in self.splits.values() for one in pictures]
        height, width = (side.pop() if len(side) == 1 else 0 for side in map(set, zip(*sizes, strict=True)))
        return height, width, self.channels

    def chosen(self, split: str) -> list[Picture]:
        """The pictures of a split in TFDS syntax. Raises UserError if it is unknown or empty."""
        parts = spans(f"data.data_dir={self.root}", self.sizes, _plain(split, self.sizes))
        return [picture for part in parts for picture in self.splits[part.split][part.start : part.stop]]

    def load(self, split: str, size: Size | None) -> Split:
        """A whole split, decoded and, if ``size`` is given, resized; kept in the cache.

        Raises UserError for images of unequal size without one, and for more than fits in memory.
        """
        pictures = self.chosen(split)
        height, width, channels = self.image_shape
        rows, columns = size or (height, width)
        require_memory(f"split {split!r} of data.data_dir={self.root}", len(pictures), (rows, columns, channels))
        key = {"format": FOLDER_FORMAT, "size": size, "channels": channels, "files": _digest(_identities(pictures))}
        return Split(*cached(self.cache, FOLDER, key, lambda: self._decoded(pictures, size)))

    def _decoded(self, pictures: list[Picture], size: Size | None) -> tuple[np.ndarray, np.ndarray]:
        channels = self.channels

        def decode(data: bytes, source: str) -> np.ndarray:
            image = photograph(data, source, channels)
            return resize(image, size) if size else image

        images, labels = stacked(FOLDER, len(pictures), _chunks(FolderSource(self, pictures)), decode)
        return images, labels.astype(np.int32)

    def source(self, split: str) -> "FolderSource":
        """The images of a split one by one. Raises UserError for a grey set."""
        if self.channels != 3:
            raise UserError(f"data.name={FOLDER}: grey images, allowed 3 channels for reading record by record")
        return FolderSource(self, self.chosen(split))

    def report(self, allowed: float) -> None:
        """Warn of what is left out and of equal files in two splits.

        Raises UserError if more than the share ``allowed`` of all pictures cannot be read.
        """
        total = len(self.unreadable) + sum(self.sizes.values())
        if self.unreadable:
            found = f"{len(self.unreadable):,} of {total:,} pictures in {self.root} cannot be read"
            if len(self.unreadable) > allowed * total:
                first = f"{found}, the first: {self.unreadable[0]}"
                raise UserError(f"{first}; allowed a share of {allowed:g} (data.corrupt_share)")
            warnings.warn(f"{found} and are left out: {'; '.join(self.unreadable[:NAMED])}", stacklevel=2)
        if self.ignored:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.ignored.most_common())
            warnings.warn(f"{self.ignored.total():,} files in {self.root} are ignored: {kinds}", stacklevel=2)
        twice = self.in_two_splits()
        if twice:
            example = f"{printable(twice[0][0])} and {printable(twice[0][1])}"
            warnings.warn(f"{len(twice):,} files are in two splits, byte for byte, as {example}", stacklevel=2)

    def in_two_splits(self) -> list[tuple[str, str]]:
        """Names of files whose bytes are those of a file in a split before, with the name of that file."""
        first: dict[str, tuple[str, str]] = {}
        found = []
        for split, pictures in self.splits.items():
            for picture in pictures:
                where, name = first.setdefault(picture.facts.digest, (split, picture.name))
                if where != split:
                    found.append((name, picture.name))
        return found


class FolderSource:
    """Some pictures of a folder as a `plq.data.source.Source`."""

    exif = True

    def __init__(self, folder: ImageFolder, pictures: list[Picture]) -> None:
        self.root, self.pictures = folder.root, pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Raises UserError if the file cannot be read."""
        picture = self.pictures[index]
        return read_file(self.root, picture.name), picture.label

    def where(self, index: int) -> str:
        """A picture's name in messages."""
        return self.pictures[index].name


def _plain(split: str, sizes: dict[str, int]) -> str:
    """The split as TFDS takes it, of a set that grows and shrinks: a number beyond the end means the end.

    "val" and "validation" are names of the split that they are: `VALIDATION`, or `TEST` where it is alone.
    """
    held = VALIDATION if VALIDATION in sizes else TEST
    plain = []
    for part in split.split("+"):
        name, bracket, rest = part.strip().partition("[")
        name = held if name in ("val", VALIDATION) else name
        plain.append(name + bracket + (_clipped(rest, sizes[name]) if name in sizes else rest))
    return "+".join(plain)


def _clipped(text: str, size: int) -> str:
    return NUMBER.sub(lambda number: str(min(int(number[0]), size)), text)


def _identities(pictures: tuple[Picture, ...] | list[Picture]) -> list[tuple[str, int, str]]:
    return [(picture.name, picture.label, picture.facts.digest) for picture in pictures]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _chunks(source: FolderSource) -> Iterator[list[Encoded]]:
    for start in range(0, len(source), CHUNK):
        indices = range(start, min(start + CHUNK, len(source)))
        yield [(*source[index], source.where(index)) for index in indices]
