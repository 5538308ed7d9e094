"""Files and folders that a program writes: looked at before any work is done, written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from plq.errors import UserError

Inputs = Mapping[str, object]  # what a program reads, by the option that it was given as


def require_file(out: Path, inputs: Inputs, is_ours: Callable[[Path], bool], ours: str, option: str = "--out") -> None:
    """Raise UserError unless a file can be written at ``out``: a new one, or in place of one that ``is_ours``.

    Args:
        ours: what ``is_ours`` tells, in words.
    """
    require_apart(out, inputs, option)
    if out.is_dir():
        raise UserError(f"{_named(out, option)}: is a folder, allowed the name of a file")
    if out.exists() and not out.is_file():
        raise UserError(f"{_named(out, option)}: is not a regular file, allowed the name of a file")
    if out.is_file() and not is_ours(out):
        raise UserError(f"{_named(out, option)}: is there and is not {ours}; it is left alone, choose another name")
    require_room(out, option)


def require_apart(out: object, inputs: Inputs, option: str = "--out") -> None:
    """Raise UserError if ``out`` is one of the inputs, by whatever name or link, or lies inside of one.

    Addresses are compared by their text.
    """
    for name, source in inputs.items():
        if _is_same(out, source):
            raise UserError(f"{_named(out, option)}: is {name} itself, allowed another path")
        if _is_inside(out, source):
            raise UserError(f"{_named(out, option)}: is inside {name} {source}, allowed a path outside of it")


def _is_same(out: object, source: object) -> bool:
    if isinstance(out, Path) and isinstance(source, Path):
        return out.exists() and source.exists() and out.samefile(source)
    return str(out) == str(source)


def _is_inside(out: object, folder: object) -> bool:
    if isinstance(out, Path) and isinstance(folder, Path):
        return folder.is_dir() and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder))
    return str(out).startswith(f"{folder}/")


def require_room(out: Path, option: str = "--out") -> None:
    """Raise UserError unless something can be written at ``out``, in a folder that is there or can be made."""
    target = Path(os.path.realpath(out))
    nearest = next(folder for folder in target.parents if os.path.lexists(folder))
    if not nearest.is_dir():
        raise UserError(f"{_named(out, option)}: cannot be written, {nearest} is a file; allowed a folder there")
    with writing(out, option):
        (nearest / target.relative_to(nearest).parts[0]).exists()  # raises for a name that is too long
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".plq-"):
            pass


@contextlib.contextmanager
def writing(path: Path, option: str = "") -> Iterator[None]:
    """Raise UserError, naming the path, where it cannot be written to: a full disk, a quota, a read-only mount."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{_named(path, option)}: cannot be written to ({error.strerror or error})") from error


def make_folder_of(path: Path) -> None:
    """Make the folder of what ``path`` names. Raises UserError if it cannot be made."""
    with writing(path):
        Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """The whole data or nothing, also when the process is killed. A symbolic link stays, what it names is replaced.

    Raises UserError if it cannot be written.
    """
    with writing(path), replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text_atomic(path: Path, text: str) -> None:
    """As `write_atomic`, in UTF-8; of a file name that is no UTF-8 the other bytes are escaped."""
    write_atomic(path, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file, beside what ``path`` names, that takes its place at the end, and is removed after an error."""
    target = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".plq-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _named(path: object, option: str) -> str:
    return f"{option} {path}" if option else str(path)
