"""The files of a folder that are pictures by their names, and a count of those that are not."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from plq.errors import UserError

# Formats that Pillow names but does not decode by itself: it has no decoder, or starts another program.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
HIDDEN, NO_EXTENSION = "hidden", "no extension"


class PictureFile(NamedTuple):
    """name: relative to the folder, with "/". size: in bytes, -1 of what is no regular file or cannot be reached."""

    name: str
    size: int
    mtime_ns: int


def find_pictures(root: Path) -> tuple[list[PictureFile], Counter[str]]:
    """All pictures below a folder, and how many other files there are, by extension (or `HIDDEN`, `NO_EXTENSION`).

    Symbolic links are followed. Raises UserError for a folder that cannot be read and for a loop of links.
    """
    pictures, ignored, known = [], Counter[str](), extensions()
    for name, found in _walk(root, "", ()):
        extension = os.path.splitext(name)[1].lower()
        if name.rpartition("/")[2].startswith("."):
            ignored[HIDDEN] += 1
        elif extension in known:
            pictures.append(picture_file(name, found))
        else:
            ignored[extension or NO_EXTENSION] += 1
    return pictures, ignored


def picture_file(name: str, found: os.stat_result | None) -> PictureFile:
    """A file by its name and what `os.stat` says of it, None if nothing."""
    if found is None or not stat.S_ISREG(found.st_mode):
        return PictureFile(name, -1, 0)
    return PictureFile(name, found.st_size, found.st_mtime_ns)


def extensions() -> frozenset[str]:
    """In lower case, with the dot: those of the formats that Pillow decodes."""
    registered = Image.registered_extensions()  # fills in Image.OPEN too
    decoded = Image.OPEN.keys() - NOT_DECODED | {"MPO"}  # which is opened as JPEG
    return frozenset(extension for extension, kind in registered.items() if kind in decoded)


def folders_of(root: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted. Raises UserError if it cannot be read."""
    return [entry.name for entry in _entries(root) if not entry.name.startswith(".") and entry.is_dir()]


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result | None]]:
    """Name and status of each file; hidden folders count as one file. ``above``: identities of the folders above."""
    for entry in _entries(folder):
        found = _status(entry)
        if found is None or not stat.S_ISDIR(found.st_mode) or entry.name.startswith("."):
            yield prefix + entry.name, found
            continue
        identity = (found.st_dev, found.st_ino)
        if identity in above:
            raise UserError(f"{entry.path}: is a symbolic link to a folder that it lies in; remove the link")
        yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, identity))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what the entry leads to; None for a link that leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        return None
