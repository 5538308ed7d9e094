"""Arrays computed once and kept on disk: an image set is decoded in the first run only."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


def cached(directory: Path, name: str, key: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """``make()``'s images and labels, or, memory-mapped, those that an earlier call with this key made.

    A file is complete or absent (written aside, then renamed); one that does not read back is made again.
    Where nothing can be written there is no cache, and a warning.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    paths = [directory / f"{name}-{digest}-{part}.npy" for part in ("images", "labels")]
    found = _read(paths)
    if found is not None:
        return found
    arrays = make()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, array in zip(paths, arrays, strict=True):
            _write(path, array)
    except OSError as error:
        logging.getLogger("plq").warning("no cache in %s: %s", directory, error)
        return arrays
    return _read(paths) or arrays


def _read(paths: list[Path]) -> Arrays | None:
    try:
        images, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    except (OSError, ValueError, EOFError):
        return None
    whole = images.dtype == np.uint8 and labels.dtype == np.int32 and len(images) == len(labels)
    return (images, np.array(labels)) if whole else None


def _write(path: Path, array: np.ndarray) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
