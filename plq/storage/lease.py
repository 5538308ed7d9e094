"""One run at an address: an object there that the run renews, and that another run watches before it goes on.

An object store has no locks that end with their holder. So the holder writes its lock anew every few seconds, with a
higher number, and whoever finds a lock looks whether it changes for a while; no clocks are compared. What is left: a
run that the store has not heard of for so long and that is alive after all. It finds the lock of another one at its
next sign of life, and stops before it writes again.
"""

import json
import os
import socket
import threading
import time
import uuid
import warnings
from typing import Any

from plq.errors import UserError
from plq.storage.bucket import Bucket

NAME = ".lock"
BEAT = 10.0  # seconds between two signs of life
STALE = 60.0  # seconds without one after which a run counts as ended
SETTLE = 1.0  # seconds for two runs that found no lock to see which one wrote last


class Lease(threading.Thread):
    """Held from `take` to `release`."""

    def __init__(self, bucket: Bucket, beat: float = BEAT, stale: float = STALE, settle: float = SETTLE):
        super().__init__(name="lease", daemon=True)
        self.bucket, self.beat, self.stale, self.settle = bucket, beat, stale, settle
        self._quick = Bucket(bucket.address, waits=())
        self.me = {"holder": f"process {os.getpid()} on {socket.gethostname()}", "token": uuid.uuid4().hex}
        self._beats = 0
        self._over = threading.Event()
        self._writing = threading.Lock()

    def take(self) -> None:
        """Raises UserError, naming the process, if another run holds the address."""
        found = self.bucket.read(NAME)
        if found is None and not self.bucket.create(NAME, self._sign()):
            found = self.bucket.read(NAME)
        if found is not None and not self._is_mine(found):  # it is, if the answer to `create` was lost
            self._outlast(found)
            self.bucket.write(NAME, self._sign())
        time.sleep(self.settle)
        self.check()
        self.start()

    def _outlast(self, found: bytes) -> None:
        """Return once this lock is gone, or has not been renewed for long enough."""
        holder, until = _holder(found), time.monotonic() + self.stale
        warnings.warn(f"{self._where()}: locked by {holder}; waiting {self.stale:g} s for a sign of it", stacklevel=4)
        while time.monotonic() < until:
            time.sleep(min(self.beat, self.stale) / 4)
            now = self.bucket.read(NAME)
            if now is None:
                return
            if now != found:
                raise UserError(f"{self._where()}: another run is using it ({_holder(now)})")

    def check(self) -> None:
        """Give a sign of life. Raises UserError if another run has taken the address over."""
        with self._writing:
            found = self.bucket.read(NAME)
            if not self._is_mine(found):
                raise UserError(f"{self._where()}: another run is using it ({_holder(found)}), this one stops")
            self.bucket.write(NAME, self._sign())

    def run(self) -> None:
        while not self._over.wait(self.beat):
            with self._writing:
                try:
                    if self._is_mine(self._quick.read(NAME)):
                        self._quick.write(NAME, self._sign())
                except UserError:
                    continue  # the next one may come through; if none does for long, `check` will tell

    def release(self) -> None:
        """Take the lock away, if it is still this run's."""
        self._over.set()
        with self._writing:
            if self._is_mine(self.bucket.read(NAME)):
                self.bucket.remove([NAME])

    def _is_mine(self, found: bytes | None) -> bool:
        return _lock(found).get("token") == self.me["token"]

    def _sign(self) -> bytes:
        self._beats += 1
        return json.dumps({**self.me, "beats": self._beats}).encode()

    def _where(self) -> str:
        return f"--workdir {self.bucket.address}"


def _lock(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder(data: bytes | None) -> str:
    return str(_lock(data).get("holder", "which one, its lock does not say"))
