"""What one process of several knows of the others' end.

JAX's coordination service, which process 0 runs, would keep the others of a process that failed waiting for minutes in
their next collective operation, and end them with pages of C++. So each process has a watch on that service: a thread
that gives signs of life and hears why another process ended. Process 0's watch also looks for the signs of the others.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import jax
from jax._src import distributed
from jax.errors import JaxRuntimeError

from plq.errors import UserError
from plq.storage.address import named

LOST = 134  # exit status once another process is lost: that of JAX's own way out
GRACE_SECONDS = 2.0  # for the others to hear of an end, or to come to the same one by themselves
GO_ON = "the same command goes on from the newest checkpoint"


def service() -> Any:
    """The client of JAX's coordination service, whose keys and barriers have no public door."""
    return distributed.global_state.client


class Heartbeat(threading.Thread):
    """``patience``: seconds without a sign of life after which a process counts as lost."""

    def __init__(self, patience: float):
        super().__init__(name="watch", daemon=True)
        self.patience, self.over = patience, False
        self.me, self.service, self.host = jax.process_index(), service(), socket.gethostname()
        self.signs: dict[str, tuple[str, float]] = {}  # by process: the last sign and when it was first seen

    def run(self) -> None:
        count = 0
        while not self.over:
            count += 1
            try:
                self.service.key_value_set(f"plq/alive/{self.me}", f"{self.host} {count}", allow_overwrite=True)
                if self.me == 0:
                    self._look()
                self._hear(self.patience / 4)
            except JaxRuntimeError as error:
                self._unheard(error)

    def _look(self) -> None:
        """End the run if a process has not given a new sign for too long; clocks of other machines do not count."""
        now = time.monotonic()
        for key, sign in self.service.key_value_dir_get("plq/alive/"):
            if self.signs.get(key, ("", 0.0))[0] != sign:
                self.signs[key] = (sign, now)
        for key, (sign, seen) in self.signs.items():
            if now - seen > self.patience:
                who = f"process {key.rsplit('/', 1)[-1]} on {sign.split()[0]}"
                text = f"{who} gave no sign of life for {self.patience:g} s and is lost; {GO_ON}"
                self._tell(LOST, text)
                self._exit(LOST, text)

    def _hear(self, seconds: float) -> None:
        """Wait for news of an end, and follow it unless this process has come to one itself by then."""
        news = json.loads(self.service.blocking_key_value_get("plq/end", round(1000 * seconds)))
        time.sleep(GRACE_SECONDS)
        if not self.over:
            self._exit(news["status"], news["text"])

    def _unheard(self, error: JaxRuntimeError) -> None:
        if self.over or "DEADLINE_EXCEEDED" in str(error):
            return
        self._exit(LOST, f"process 0, which all others talk to, cannot be reached; {GO_ON}")

    def _tell(self, status: int, text: str) -> None:
        """The first end that is told counts."""
        with contextlib.suppress(JaxRuntimeError):  # another one is known, or there is no one to tell
            self.service.key_value_set("plq/end", json.dumps({"status": status, "text": text}))

    def fail(self, error: BaseException) -> NoReturn:
        """End this process and the others because of an error here."""
        if isinstance(error, JaxRuntimeError):
            time.sleep(self.patience + 2 * GRACE_SECONDS)  # if it is for want of another process, that ends this one
        self.over = True
        status, text = 1, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if isinstance(error, UserError):
            status, text = 2, named(str(error))
        elif isinstance(error, KeyboardInterrupt):
            status, text = 130, "stopped by Ctrl-C"
        else:
            traceback.print_exception(error)
        self._tell(status, f"process {self.me} on {self.host} ended the run: {text}")
        self._exit(status, text)

    def _exit(self, status: int, text: str) -> NoReturn:
        """Without the service's own farewell, which waits for all. Process 0 stays until the others have heard."""
        print(f"plq: {text}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        if self.me == 0:
            time.sleep(2 * GRACE_SECONDS)
        os._exit(status)
