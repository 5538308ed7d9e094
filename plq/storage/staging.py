"""Addresses for programs that read or write a model or a run once: a local copy for as long as it is needed."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from plq.errors import UserError
from plq.storage.address import Address, copies, named, place
from plq.storage.bucket import Bucket
from plq.storage.mirror import fetch

MODEL = ("", "config.json", "model.json", "variables.safetensors", "model")  # the first is the object itself
RUN = ("config.json", "checkpoints")


@contextlib.contextmanager
def staged_input(given: str | Path | Address, parts: tuple[str, ...] = MODEL) -> Iterator[Path]:
    """The path given, or that of a copy of what is at an address: of a folder, only these parts.

    What is not there is not in the copy. A UserError about the copy names the address.
    """
    given = place(given) if isinstance(given, str) else given
    if isinstance(given, Path):
        yield given
        return
    with _copy(given) as path:
        fetch(Bucket(given), path, parts)
        yield path


@contextlib.contextmanager
def staged_output(given: Path | Address, *suffixes: str) -> Iterator[Path]:
    """The path given, or one whose file or folder is sent to the address at the end.

    What is at the address already is at the path as well, so that it can be looked at before it is replaced.
    ``suffixes``: of files beside it that are treated alike.
    """
    if isinstance(given, Path):
        yield given
        return
    with _copy(given) as path:
        written = {given: path, **{given.with_suffix(suffix): path.with_suffix(suffix) for suffix in suffixes}}
        for address, copy in written.items():
            _look(Bucket(address), copy)
        yield path
        for address, copy in written.items():
            _send(copy, Bucket(address))


def _look(bucket: Bucket, copy: Path) -> None:
    """What is there, by name; with its content only what says whether it is a model."""
    for name in bucket.sizes():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    fetch(bucket, copy, ("", "model.json"))


def _send(copy: Path, bucket: Bucket) -> None:
    """A file, or the files of a model's folder, its description last."""
    for path in [copy] if copy.is_file() else sorted(copy.glob("*"), reverse=True):
        bucket.send(path, "" if path == copy else path.name)


@contextlib.contextmanager
def _copy(address: Address) -> Iterator[Path]:
    """The path of a copy, in a folder of its own that is removed at the end."""
    copies().mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix="one-", dir=copies()))
    path = address.copy(holder.name)
    path.parent.mkdir(parents=True)
    try:
        yield path
    except UserError as error:
        raise UserError(named(str(error))) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)
