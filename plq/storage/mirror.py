"""A run's folder at an address: a local copy that the run works in, and what is sent of it.

Objects are whole or not there, but a folder of them grows one by one. So a checkpoint counts from the moment on at
which its last object is there, ``commit_success.txt``, as with Orbax's own checkpoints in an object store; and metrics
are sent before the checkpoint that they belong to, so that a run that goes on from it finds them all.
"""

import contextlib
import datetime
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from plq.errors import UserError
from plq.storage.address import Address
from plq.storage.bucket import Bucket
from plq.storage.lease import NAME as LOCK
from plq.storage.lease import Lease

COMPLETE = "commit_success.txt"
SMALL = ("config.json", "metrics.jsonl", "timing.jsonl", "tensorboard", "model")
PARTS = (*SMALL, "checkpoints")
AT_ONCE = 8  # objects on their way


def steps_in(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of objects by the checkpoint that they belong to."""
    steps: dict[str, list[str]] = {}
    for name in names:
        folder, _, rest = name.partition("/")
        step, _, rest = rest.partition("/")
        if folder == "checkpoints" and rest:
            steps.setdefault(step, []).append(name)
    return steps


def fetch(bucket: Bucket, folder: Path, parts: tuple[str, ...] = PARTS) -> list[str]:
    """Copy these parts of a run to a folder; names of the objects of checkpoints that are not complete."""
    names = [name for name in bucket.sizes() if name.partition("/")[0] in parts]
    steps = steps_in(names)
    broken = [name for step, held in steps.items() if f"checkpoints/{step}/{COMPLETE}" not in held for name in held]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: bucket.fetch(name, folder / name), sorted(set(names) - set(broken))))
    return broken


class Mirror:
    """Sends what a run writes. All of it is there once `close` has returned.

    Holds the address from the start on. Raises UserError if another run does, or if it is not the address of a run.
    """

    def __init__(self, bucket: Bucket, folder: Path):
        self.bucket, self.folder, self.lease = bucket, folder, Lease(bucket)
        self._sent: dict[str, tuple[int, int]] = {}  # by name: size and time of the file
        self._there: set[int] = set()  # steps
        self._background = ThreadPoolExecutor(1, thread_name_prefix="mirror")
        self._sending: Future[None] | None = None
        self._given_up = threading.Event()
        tops = {name.partition("/")[0] for name in bucket.sizes()}
        if tops and not tops & {*PARTS, LOCK}:
            raise UserError(f"--workdir {bucket.address}: holds other things and no run; allowed a new name")
        self.lease.take()
        try:
            self._pull()
        except BaseException:
            self.lease.release()
            raise

    def _pull(self) -> None:
        """Fill the folder. What a killed save left at the address is warned about and removed."""
        broken = fetch(self.bucket, self.folder)
        if broken:
            names = ", ".join(steps_in(broken))
            warnings.warn(f"{self.bucket.address}/checkpoints: removed half-written checkpoints {names}", stacklevel=4)
            self.bucket.remove(broken)
        steps = (path.name for path in (self.folder / "checkpoints").glob("*"))
        self._there = {int(step) for step in steps if step.isdecimal()}
        self._sent = {name: _stamp(path) for name, path in self._files(*SMALL)}

    def send(self) -> None:
        """All but checkpoints, as far as it has changed. Raises UserError if that cannot be done."""
        self.lease.check()
        for name, path in self._files(*SMALL):
            stamp = _stamp(path)
            if self._sent.get(name) != stamp:
                self.bucket.write(name, path.read_bytes())  # in one piece: the run may be adding to it
                self._sent[name] = stamp

    def send_step(self, step: int, kept: list[int]) -> None:
        """In the background: all files, then the checkpoint of this step as soon as it is in the folder.

        ``kept``: the steps that are to stay beside it.
        """
        self._given_up.clear()
        self._sending = self._background.submit(self._send_step, step, kept)

    def wait(self) -> None:
        """Return when `send_step` is done. Raises UserError if it failed. The checkpoint must be in the folder."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    def give_up(self) -> None:
        """A checkpoint that is not in the folder by now does not come."""
        self._given_up.set()

    def keep(self, steps: list[int]) -> None:
        """Remove the other checkpoints, of those that this run has sent or found."""
        others = sorted(self._there - set(steps))
        if others:
            self.lease.check()
        for step in others:
            self._drop(step)

    def _send_step(self, step: int, kept: list[int]) -> None:
        while not (self.folder / f"checkpoints/{step}").is_dir():
            if self._given_up.wait(0.05):
                return
        self.send()
        self._upload(f"checkpoints/{step}")
        self._there.add(step)
        self.keep([*kept, step])

    def set_aside(self, steps: list[int], folder: str) -> None:
        """Send these steps as parts of another folder, where they are by now, and drop them in ``checkpoints``."""
        self.lease.check()
        for step in steps:
            self._upload(f"{folder}/{step}")
            self._drop(step)

    def _upload(self, folder: str) -> None:
        """All files of a checkpoint, at last the one that says so."""
        files = [(name, path) for name, path in self._files(folder) if name != f"{folder}/{COMPLETE}"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda file: self.bucket.send(file[1], file[0]), files))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.bucket.write(f"{folder}/{COMPLETE}", f"{now}\n".encode())

    def _drop(self, step: int) -> None:
        """First what says that it is complete."""
        self.bucket.remove([f"checkpoints/{step}/{COMPLETE}"])
        self.bucket.remove(steps_in(self.bucket.sizes()).get(str(step), []))
        self._there.discard(step)

    def _files(self, *parts: str) -> list[tuple[str, Path]]:
        """Names and paths of files, those of a model with its description last."""
        roots = [self.folder / part for part in parts]
        paths = [path for root in roots for path in (root, *sorted(root.rglob("*"), reverse=True)) if path.is_file()]
        return [(path.relative_to(self.folder).as_posix(), path) for path in paths]

    def close(self) -> None:
        """Send what is left, and let go of the address."""
        self.give_up()
        try:
            self.wait()
            self.send()
        finally:
            self._background.shutdown(wait=False, cancel_futures=True)
            self.lease.release()


@contextlib.contextmanager
def mirrored(address: Address, folder: Path) -> Iterator[Mirror]:
    """Process 0's way to the address; the folder is a copy of what is there, and is removed once all is sent."""
    with copied(address, folder, empty=True):
        mirror = Mirror(Bucket(address), folder)
        try:
            yield mirror
        finally:
            mirror.close()


@contextlib.contextmanager
def copied(address: Address, folder: Path, empty: bool = False) -> Iterator[None]:
    """The folder as a copy of what is at the address, removed at the end unless there was an error."""
    clear(folder)
    if not empty:
        fetch(Bucket(address), folder)
    yield
    clear(folder)


def clear(folder: Path) -> None:
    """Remove all but the lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
