"""Signals that ask a run to stop, at a step on which all processes agree."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point


@contextlib.contextmanager
def caught_signals(
    kinds: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT), then: Callable[[], object] = lambda: None
) -> Iterator[list[int]]:
    """The signals of these kinds that come, to be acted on between two steps; a second one of a kind acts at once.

    ``then`` is called at each.
    """
    received: list[int] = []

    def note(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])
        then()

    before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in kinds}
    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield received
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], int]]:
    """A function, to be called after every step: the signal to stop for now, 0 for none.

    SIGTERM and Ctrl-C are noted, to be acted on between two steps; a second Ctrl-C acts at once, and a second SIGTERM
    where there is one process. With several, JAX hears SIGTERM at any of them (also outside of this context) and
    chooses the step.
    """
    if jax.process_count() == 1:
        with caught_signals() as received:
            yield lambda step: received[0] if received else 0
        return
    with caught_signals((signal.SIGINT,), lambda: os.kill(os.getpid(), signal.SIGTERM)):
        yield lambda step: signal.SIGTERM if reached_preemption_sync_point(step) else 0
