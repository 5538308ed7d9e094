"""What each picture of a folder is, found by decoding it once and kept on disk: size, format, or what is wrong."""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from plq.data.images import SIDEWAYS, open_image, upright
from plq.data.jpeg import JPEG, decode_rgb, image_size, mode_and_format, orientation
from plq.data.picture_files import PictureFile
from plq.errors import UserError, printable
from plq.storage.output import write_text_atomic

SURVEY_FORMAT = 1  # raised when decoding, or what is refused, changes
MANY = 2000  # pictures from which on progress is shown
AT_ONCE = 500


class Facts(NamedTuple):
    """height, width: upright. mode, format: in Pillow's words. digest: of the bytes. error: "" if it is readable."""

    height: int = 0
    width: int = 0
    mode: str = ""
    format: str = ""
    digest: str = ""
    error: str = ""


def survey(root: Path, files: Sequence[PictureFile], directory: Path) -> list[Facts]:
    """The facts of each file; those of an earlier call for files of these names, sizes and times, from ``directory``.

    Where nothing can be written the next call decodes again, and a warning says so.
    """
    key = json.dumps([SURVEY_FORMAT, str(root.resolve()), *files])
    path = directory / f"survey-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    found = _read(path, len(files))
    if found is not None:
        return found
    facts = _examined(root, files)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(facts))
    except (OSError, UserError) as error:
        logging.getLogger("plq").warning("no cache in %s: %s", directory, error)
    return facts


def _examined(root: Path, files: Sequence[PictureFile]) -> list[Facts]:
    facts: list[Facts] = []
    title = f"looking at {printable(root.name)}"
    progress = tqdm(total=len(files), desc=title, unit=" images", disable=len(files) < MANY)
    with progress, ThreadPoolExecutor() as pool:
        for start in range(0, len(files), AT_ONCE):
            facts += pool.map(partial(examine, root), files[start : start + AT_ONCE])
            progress.update(len(facts) - start)
    return facts


def _read(path: Path, count: int) -> list[Facts] | None:
    try:
        found = [Facts(*entry) for entry in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == count else None


def examine(root: Path, file: PictureFile) -> Facts:
    """The facts of one file: all of it is decoded, a JPEG at an eighth of its size."""
    try:
        data = read_file(root, file.name) if file.size >= 0 else b""
        return facts_of(data, file) if file.size > 0 else Facts(error=_empty(file))
    except UserError as error:
        return Facts(error=str(error))


def _empty(file: PictureFile) -> str:
    return f"{file.name}: {'is empty' if file.size == 0 else 'is not a regular file, or a link that leads nowhere'}"


def read_file(root: Path, name: str) -> bytes:
    """The bytes of a picture. Raises UserError if they cannot be read."""
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from error


def facts_of(data: bytes, file: PictureFile) -> Facts:
    """Raises UserError unless all of the image can be decoded."""
    mode, kind = mode_and_format(data, file.name)
    if data.startswith(JPEG):
        decode_rgb(data, file.name, 1)
        height, width = image_size(data, file.name)
        if orientation(data, file.name) in SIDEWAYS:
            height, width = width, height
    else:
        width, height = upright(open_image(data, file.name)).size
    return Facts(height, width, mode, kind, hashlib.sha256(data).hexdigest()[:32])
