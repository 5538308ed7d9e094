"""TensorBoard events, written without TensorFlow."""

from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class EventWriter:
    """Scalars and texts by step. ``purge_step``: TensorBoard forgets what was written from this step on."""

    def __init__(self, directory: Path, purge_step: int | None = None):
        # Two files that are begun in one second have one name, but for the suffix.
        suffix = f".{purge_step or 0}"
        self._writer = SummaryWriter(str(directory), purge_step=purge_step, filename_suffix=suffix)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by tag, such as "train/loss"."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, float(value), step)

    def text(self, tag: str, text: str) -> None:
        self._writer.add_text(tag, text, 0)

    def close(self) -> None:
        self._writer.close()
