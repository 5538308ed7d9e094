"""Signals that ask a run to stop, at a step on which all processes agree."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], int]]:
    """A function, to be called after every step: the signal to stop for now, 0 for none.

    SIGTERM and Ctrl-C are noted, to be acted on between two steps; a second Ctrl-C acts at once, and a second SIGTERM
    where there is one process. With several, JAX hears SIGTERM at any of them (also outside of this context) and
    chooses the step.
    """
    received: list[int] = []
    several = jax.process_count() > 1
    kinds = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)

    def note(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])
        if several:
            os.kill(os.getpid(), signal.SIGTERM)

    def agreed(step: int) -> int:
        return signal.SIGTERM if reached_preemption_sync_point(step) else 0

    before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in kinds}
    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield agreed if several else lambda step: received[0] if received else 0
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
