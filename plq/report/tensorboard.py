"""TensorBoard events, written without TensorFlow."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class EventWriter:
    """Scalars by step. ``purge_step``: TensorBoard forgets what was written from this step on.

    Events are on disk when a call returns. tensorboardX's own writer has a thread for that; where the disk is full it
    dies, and then the run would wait for it without end.
    """

    def __init__(self, directory: Path, purge_step: int = 0):
        directory.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names: by step, so that a clock set back does no harm.
        self._writer = EventsWriter(str(directory / f"{purge_step:010}.events"))
        if purge_step:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by tag, such as "train/loss"."""
        for tag, value in values.items():
            self._write(Event(step=step, summary=scalar(tag, float(value))))
        self._writer.flush()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def close(self) -> None:
        self._writer.close()
