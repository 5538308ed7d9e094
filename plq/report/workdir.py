"""The folder of a run: made, claimed by one process at a time, written to in whole files."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from plq.errors import UserError

OURS = ("config.json", "checkpoints", "metrics.jsonl", ".lock")


def prepare_workdir(path: Path, option: str = "--workdir", ours: Sequence[str] = OURS) -> None:
    """Make the folder, or accept one that `_is_ours`. Raises UserError if it is something else.

    ``option``: what the folder was given as.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{option} {path}: a file is in the way, allowed a folder") from error
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be made ({error.strerror})") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: cannot be written to")
    if {found.name for found in path.iterdir()} - {".lock"} and not _is_ours(path, ours):
        raise UserError(f"{option} {path}: holds other things and no run; allowed a new or empty folder, or a run's")


def _is_ours(path: Path, ours: Sequence[str]) -> bool:
    """Whether the folder has been held by `lock`, or the first of ``ours`` is there and is one of plq's own files."""
    with contextlib.suppress(OSError, ValueError):
        if (path / ".lock").read_text("utf-8").startswith("process "):
            return True
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((path / ours[0]).read_text("utf-8"))
        sections = lambda: all(isinstance(fields, dict) for fields in found.values())
        return isinstance(found, dict) and ("command" in found or sections())
    return False


def require_shared(path: Path, seconds: float = 60.0) -> None:
    """Raise UserError unless the folder is the one that process 0 has prepared.

    A network file system may show a new file some time after it was written: wait that long.
    """
    until = time.monotonic() + seconds
    while not (path / "config.json").is_file():
        if time.monotonic() > until:
            raise UserError(f"--workdir {path}: not the folder of process 0; allowed one that all processes see")
        time.sleep(0.2)


@contextlib.contextmanager
def lock(path: Path, option: str = "--workdir") -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it however the process ends.

    Raises UserError, naming the process, if another one holds it.
    """
    with (path / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"{option} {path}: another run is using it ({file.read().strip()})") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
