"""A run in one process or in several: joined at the start, and ended together."""

import contextlib
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from plq.distributed.devices import devices
from plq.distributed.heartbeat import LOST, Heartbeat, service
from plq.distributed.process import ALONE, ProcessInfo, launcher
from plq.errors import UserError

JOIN_SECONDS = 300  # for all processes to come
HEARTBEAT_SECONDS = 100  # JAX's own: the last resort, if a watch is stuck itself
LONG_MS = 7 * 24 * 3600 * 1000  # for those who wait for others; a lost one ends the waiting


@contextlib.contextmanager
def session(place: ProcessInfo | None, patience: float) -> Iterator[None]:
    """What is done in here is done by all processes of the run; the failure of one ends all.

    Nothing is changed for a process that is alone. Must come before JAX is asked for its devices.

    Args:
        place: from flags; None asks the system that started this process.
        patience: seconds without a sign of life after which a process counts as lost.
    Raises UserError if the processes do not come together, or JAX finds no devices.
    """
    _join(place)
    devices()
    if jax.process_count() == 1:
        yield
        return
    watch = Heartbeat(patience)
    watch.start()
    try:
        yield
    except SystemExit:
        _part(watch)
        raise
    except BaseException as error:
        watch.fail(error)
    _part(watch)


def _join(place: ProcessInfo | None) -> None:
    source = "" if place else launcher()
    if place == ALONE or not (place or source):
        return
    given: dict[str, Any] = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
    if place:
        given["coordinator_address"] = place.coordinator
        given["num_processes"], given["process_id"] = place.num_processes, place.process_id
    flags = f"--coordinator {place.coordinator} --process_id {place.process_id}" if place else f"started by {source}"
    # JAX ends a process that has waited for too long by pages of C++: we are there before it.
    guard = threading.Timer(JOIN_SECONDS, _give_up, (flags, place))
    guard.daemon = True
    guard.start()
    with warnings.catch_warnings(record=True) as notes:
        try:
            jax.distributed.initialize(**given, initialization_timeout=2 * JOIN_SECONDS)
        except Exception as error:
            why = " ".join([str(error), *(str(note.message) for note in notes)]).split()
            known = "" if place else "; --coordinator, --num_processes and --process_id say it, --num_processes 1 alone"
            raise UserError(f"{flags}: the processes did not come together ({' '.join(why)[:200]}){known}") from error
        finally:
            guard.cancel()


def _give_up(flags: str, place: ProcessInfo | None) -> None:
    why = "not all processes came"
    if place and place.process_id:
        host, _, port = place.coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            why = f"process 0 cannot be reached: {error.strerror or error}"
    print(f"plq: {flags}: waited {JOIN_SECONDS} s, {why}", file=sys.stderr, flush=True)
    os._exit(LOST)


def _part(watch: Heartbeat) -> None:
    """Wait for all, then say farewell to the service."""
    barrier("over")
    watch.over = True
    jax.distributed.shutdown()


def is_primary() -> bool:
    """Whether this is the process that writes and speaks for the run."""
    return jax.process_index() == 0


def barrier(what: str) -> None:
    """Return when all processes have come to the point of this name; each name once in a run."""
    if jax.process_count() > 1:
        service().wait_at_barrier(f"plq/{what}", LONG_MS)


def broadcast_from_primary(what: str, text: str) -> str:
    """The text that process 0 gives under this name; each name once in a run."""
    if jax.process_count() == 1:
        return text
    if is_primary():
        service().key_value_set(f"plq/{what}", text)
    return service().blocking_key_value_get(f"plq/{what}", LONG_MS)
