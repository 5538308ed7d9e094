"""The objects below an address: listed, read, written and removed, each call tried again for a while."""

import importlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from plq.errors import UserError
from plq.storage.address import PACKAGES, Address

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before a call is tried again; s3fs and gcsfs try a few times themselves
# What trying again does not help against, by the names of botocore's, google-auth's and Python's own errors.
LASTING = {
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError", "ParamValidationError",
    "DefaultCredentialsError", "PermissionError", "NotADirectoryError", "IsADirectoryError", "TypeError",
}  # fmt: skip
CREDENTIALS = {
    "gs": "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS, gives them",
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, gives them",
}

SMALL = 5 * 2**20  # bytes up to which gcsfs sends a file in one request

T = TypeVar("T")


class Bucket:
    """Objects by their names below ``address``; the name "" is the object at the address itself.

    Each method raises UserError if the store does not do it, also when asked again after each of ``waits`` (seconds).
    """

    def __init__(self, address: Address, waits: tuple[float, ...] = WAITS):
        self.address, self.waits = address, waits
        self._files = _file_system(address)

    def sizes(self) -> dict[str, int]:
        """Bytes of each object, by name. Raises UserError also if there is no such bucket."""
        root = f"{self.address.bucket}/{self.address.key}"
        try:
            found = self._tried("listed", lambda: self._files.find(root, detail=True))
        except FileNotFoundError as error:
            raise UserError(f"{self.address}: no bucket {self.address.bucket} is to be seen") from error
        files = {path: int(about["size"]) for path, about in found.items() if about["type"] == "file"}
        return {path[len(root) + 1 :]: size for path, size in files.items() if f"{path}/".startswith(f"{root}/")}

    def read(self, name: str) -> bytes | None:
        """The object; None if there is none."""
        try:
            return self._tried("read", lambda: self._files.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        # gcsfs ends what it sends by a line feed, which a store may take together with a carriage return before it:
        # the last byte would be lost. What is sent in chunks has no such end.
        chunks = {"chunksize": len(data)} if self.address.scheme == "gs" and data.endswith(b"\r") else self._checked()
        self._found("written to", lambda: self._files.pipe_file(self._path(name), data, **chunks))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object that is not there; False if it is, in a store that can tell in the same call."""
        try:
            self._found("written to", lambda: self._files.pipe_file(self._path(name), data, mode="create"))
        except FileExistsError:
            return False
        return True

    def fetch(self, name: str, path: Path) -> None:
        """The object as a file, whose folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._found("read", lambda: self._files.get_file(self._path(name), str(path)))

    def send(self, path: Path, name: str) -> None:
        """The file as an object."""
        if path.stat().st_size < SMALL:
            self.write(name, path.read_bytes())
        else:
            self._found("written to", lambda: self._files.put_file(str(path), self._path(name), **self._checked()))

    def remove(self, names: Iterable[str]) -> None:
        """One after the other; those that are not there do not matter."""
        for name in names:
            try:
                self._tried("removed from", lambda: self._files.rm_file(self._path(name)))  # noqa: B023
            except FileNotFoundError:
                continue

    def _checked(self) -> dict[str, Any]:
        """That the store is to have what was sent; of S3 botocore asks that itself, by CRC32."""
        return {"consistency": "md5"} if self.address.scheme == "gs" else {}

    def _path(self, name: str) -> str:
        return f"{self.address.bucket}/{self.address.key}/{name}".rstrip("/")

    def _found(self, what: str, call: Callable[[], T]) -> T:
        """`_tried`, where the lack of an object is an error."""
        try:
            return self._tried(what, call)
        except FileNotFoundError as error:
            raise UserError(f"{self.address}: cannot be {what} (no such object, or no such bucket)") from error

    def _tried(self, what: str, call: Callable[[], T]) -> T:
        """``call()``. FileNotFoundError and FileExistsError come through as they are."""
        waits = list(self.waits)
        while True:
            try:
                return call()
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                lasting = _lasting(error)
                if lasting or not waits:
                    tries = "" if lasting else f", after {len(self.waits) + 1} tries"
                    raise UserError(f"{self.address}: cannot be {what} ({self._why(error)}{tries})") from error
            time.sleep(waits.pop(0))

    def _why(self, error: Exception) -> str:
        text = _reason(error)
        if "Credentials" in type(error).__name__ or "nonymous caller" in text:
            return f"{text}; {CREDENTIALS[self.address.scheme]}"
        return text


def _file_system(address: Address) -> Any:
    """fsspec's, without a memory of what was listed before."""
    module = importlib.import_module(PACKAGES[address.scheme])
    kind = {"gs": "GCSFileSystem", "s3": "S3FileSystem"}[address.scheme]
    try:
        return getattr(module, kind)(use_listings_cache=False, skip_instance_cache=True)
    except Exception as error:  # gcsfs asks for credentials here
        raise UserError(f"{address}: cannot be reached ({_reason(error)}; {CREDENTIALS[address.scheme]})") from error


def _lasting(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & LASTING) or any(mark in str(error) for mark in ("Forbidden", "nonymous caller"))


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
