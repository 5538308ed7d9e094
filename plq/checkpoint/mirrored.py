"""A store whose checkpoints process 0 also sends to an address, with the other files of its run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plq.checkpoint.store import Store
from plq.storage.mirror import Mirror


class MirroredStore(Store):
    """``mirror``: of process 0; the others have none. Each process has a local folder of its own."""

    def __init__(self, directory: Path, keep_latest: int, keep_best: int, mirror: Mirror | None):
        super().__init__(directory, keep_latest, keep_best, shared=False)
        self._mirror = mirror

    def save(self, step: int, state: Any, record: Mapping[str, Any], accuracy: float | None = None) -> None:
        self.wait()
        kept = self.steps()
        super().save(step, state, record, accuracy)
        if self._mirror is not None and step not in kept:
            self._mirror.send_step(step, kept)

    def wait(self) -> None:
        """Return when the save in progress, if any, is complete here and at the address."""
        super().wait()
        if self._mirror is not None:
            self._mirror.wait()

    def close(self) -> None:
        """Finish what is in progress, and leave at the address the checkpoints that are left here."""
        super().close()
        if self._mirror is not None:
            self._mirror.give_up()
            self._mirror.wait()
            self._mirror.keep(self.steps())

    def _writing(self, write: Callable[[], Any]) -> None:
        try:
            super()._writing(write)
        except BaseException:
            if self._mirror is not None:
                self._mirror.give_up()
            raise

    def _set_aside(self, steps: list[int]) -> None:
        super()._set_aside(steps)
        if self._mirror is not None and steps:
            self._mirror.set_aside(steps, self._aside().name)
