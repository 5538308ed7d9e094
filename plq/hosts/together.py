"""A run in one process or in several: joined at the start, and ended together."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from plq.errors import UserError
from plq.hosts.place import ALONE, Place, launcher
from plq.hosts.watch import Watch, service

JOIN_SECONDS = 300  # for all processes to come
HEARTBEAT_SECONDS = 100  # JAX's own: the last resort, if a watch is stuck itself
LONG_MS = 7 * 24 * 3600 * 1000  # for those who wait for others; a lost one ends the waiting


@contextlib.contextmanager
def together(place: Place | None, patience: float) -> Iterator[None]:
    """What is done in here is done by all processes of the run; the failure of one ends all.

    Nothing is changed for a process that is alone. Must come before JAX is asked for its devices.

    Args:
        place: from flags; None asks the system that started this process.
        patience: seconds without a sign of life after which a process counts as lost.
    Raises UserError if the processes do not come together.
    """
    _join(place)
    if jax.process_count() == 1:
        yield
        return
    watch = Watch(patience)
    watch.start()
    try:
        yield
    except SystemExit:
        _part(watch)
        raise
    except BaseException as error:
        watch.fail(error)
    _part(watch)


def _join(place: Place | None) -> None:
    source = "" if place else launcher()
    if place == ALONE or not (place or source):
        return
    given: dict[str, Any] = {
        "initialization_timeout": JOIN_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if place:
        given["coordinator_address"] = place.coordinator
        given["num_processes"], given["process_id"] = place.num_processes, place.process_id
    try:
        jax.distributed.initialize(**given)
    except Exception as error:
        flags = f"--coordinator {place.coordinator}" if place else f"{source} started this process"
        others = "" if place else "; give --coordinator, --num_processes, --process_id, or --num_processes 1 alone"
        raise UserError(f"{flags}: the processes did not come together ({_reason(error)}){others}") from error


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _part(watch: Watch) -> None:
    """Wait for all, then say farewell to the service."""
    meet("over")
    watch.over = True
    jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this is the process that writes and speaks for the run."""
    return jax.process_index() == 0


def meet(what: str) -> None:
    """Return when all processes have come to the point of this name; each name once in a run."""
    if jax.process_count() > 1:
        service().wait_at_barrier(f"plq/{what}", LONG_MS)


def of_first(what: str, text: str) -> str:
    """The text that process 0 gives under this name; each name once in a run."""
    if jax.process_count() == 1:
        return text
    if is_first():
        service().key_value_set(f"plq/{what}", text)
    return service().blocking_key_value_get(f"plq/{what}", LONG_MS)
