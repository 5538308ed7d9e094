"""Everything that a run writes down, behind one object: the live line, metrics, timing and events."""

import time
from collections.abc import Mapping
from pathlib import Path

from plq.report.metrics import MetricsFile
from plq.report.progress import Progress
from plq.report.tensorboard import EventWriter
from plq.storage.output import writing


class RunLog:
    """Writes ``metrics.jsonl`` (the same in a repeated or resumed run), ``timing.jsonl`` and TensorBoard events.

    Made at the step from which a run starts or goes on: what an interrupted run wrote after it is taken back.
    """

    def __init__(self, workdir: Path, progress: Progress, start_step: int, tensorboard: bool):
        self.progress = progress
        self.metrics, self.timing = MetricsFile(workdir / "metrics.jsonl"), MetricsFile(workdir / "timing.jsonl")
        self.metrics.rewind(start_step)
        self.timing.rewind(start_step)
        self.folder = workdir / "tensorboard"
        with writing(self.folder):
            self.events = EventWriter(self.folder, start_step + 1) if tensorboard else None
        self.started = time.monotonic()

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Means over the steps since the last call: loss, accuracy; and lr, factor."""
        self._write("train", step, values)
        self.progress.update(step, dict(values))
        self.timing.write({"step": step, "seconds": round(time.monotonic() - self.started, 3)})

    def test(self, step: int, values: Mapping[str, float]) -> None:
        """An evaluation: loss, accuracy; and factor."""
        self._write("test", step, values)
        accuracy, loss = 100 * values["accuracy"], values["loss"]
        self.note(f"step {step:,}: test accuracy {accuracy:.2f} %, loss {loss:.4f}, f {values['factor']:.3g}")

    def branch(self, step: int, shares: Mapping[str, float]) -> None:
        """At an evaluation: the share of each expanded layer's output that its branch carries."""
        self._write("branch", step, shares)

    def note(self, text: str) -> None:
        """A line for the person who watches."""
        self.progress.note(text)

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self.metrics.write({"step": step, "kind": kind, **values})
        if self.events is not None:
            with writing(self.folder):
                self.events.scalars(step, {f"{kind}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        for part in (self.progress, self.metrics, self.timing):
            part.close()
        if self.events is not None:
            with writing(self.folder):
                self.events.close()


class NoLog:
    """What processes other than the first write down: nothing."""

    def train(self, step: int, values: Mapping[str, float]) -> None: ...

    def test(self, step: int, values: Mapping[str, float]) -> None: ...

    def branch(self, step: int, shares: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...
