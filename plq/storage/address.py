"""Addresses in an object store, gs://BUCKET/KEY or s3://BUCKET/KEY, and the local folders that stand for them.

Nothing but this room knows of addresses: all else works in a local copy, whose path spells the address, so that
whatever is said of the copy can be said of the address.
"""

import dataclasses
import importlib.util
import os
import re
from pathlib import Path, PurePosixPath

from plq.checks import other_type
from plq.errors import UserError
from plq.storage.cache_dir import cache_directory
from plq.storage.paths import path_of, possible

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}  # by scheme: the package that fsspec needs


@dataclasses.dataclass(frozen=True)
class Address:
    """``key``: one or more names with slashes between them."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def with_suffix(self, suffix: str) -> "Address":
        """As with paths."""
        return dataclasses.replace(self, key=str(PurePosixPath(self.key).with_suffix(suffix)))

    def copy(self, holder: str) -> Path:
        """The local path that stands for this address, of those that ``holder`` keeps."""
        return copies() / holder / self.scheme / self.bucket / self.key


def place(text: str) -> Path | Address:
    """What a person means by ``text``: a path, or an address if there is "://" in it.

    Raises UserError for an address or a path that cannot be.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return path_of(text)
    bucket, _, key = rest.strip("/").partition("/")
    names = key.split("/")
    if scheme not in PACKAGES:
        raise UserError(f"{text}: allowed gs://BUCKET/NAME, s3://BUCKET/NAME, or a path")
    if not bucket or not all(names) or {".", ".."} & {bucket, *names} or re.search(r"[\s*?\[\]]", rest):
        raise UserError(f"{text}: allowed {scheme}://BUCKET/NAME, without white space, *, ?, [, ], . or .. for a name")
    if importlib.util.find_spec(PACKAGES[scheme]) is None:
        raise UserError(f"{text}: needs {PACKAGES[scheme]}, not installed: pip install 'plq[remote]'")
    return Address(scheme, bucket, key)


def place_given(field: str, value: object) -> Path | Address:
    """What was given to a function as a path: a path or an address as it is, a text as `place` reads it.

    Raises UserError, naming the field, for anything else.
    """
    if isinstance(value, Address):
        return value
    if isinstance(value, Path):
        return possible(value, str(value))
    if not isinstance(value, (str, os.PathLike)):
        raise other_type(field, value, "a path")
    return place(os.fsdecode(value))


def named(text: str) -> str:
    """The text with addresses in place of the paths of their local copies."""
    return re.sub(f"{re.escape(str(copies()))}/[^/]+/({'|'.join(PACKAGES)})/", r"\1://", text)


def copies() -> Path:
    """Where the copies are, in a folder for each holder."""
    return cache_directory().absolute() / "addresses"
