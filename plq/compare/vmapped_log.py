"""What runs side by side write down: each lane, in its own folder, the records that a run of its own would."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plq.compare.runs import Training
from plq.report.metrics import MetricsFile
from plq.report.progress import Progress
from plq.report.workdir import prepare_workdir
from plq.train.state import Metrics
from plq.trainer.setup import Setup
from plq.trainer.workdir import claim


class VmappedLog:
    """``failed``: why, by folder, for lanes whose loss was not finite. ``tests``: the last evaluation of each lane.

    Made at the step from which the lanes start or go on: what was written after it is taken back.
    """

    def __init__(self, trainings: Sequence[Training], setup: Setup, step: int):
        self.trainings, self.setup = trainings, setup
        self.failed: dict[str, str] = {}
        self.tests: list[dict[str, float]] = [{} for _ in trainings]
        self.files = [_metrics_file(training, step) for training in trainings]
        images = setup.config.data.batch_size * len(trainings)
        self.progress = Progress(setup.total_steps, setup.epoch_steps, images, step)

    def train(self, step: int, metrics: Metrics) -> None:
        """Means over the steps since the last call: loss, accuracy; and lr, factor. tally: of NumPy arrays [k]."""
        for training, broken in zip(self.trainings, np.asarray(metrics.broken_step).tolist(), strict=True):
            if broken >= 0:
                self.failed.setdefault(training.cell.folder, f"step {broken:,}: the loss or its gradient is not finite")
        rates = np.full(len(self.files), self.setup.learning_rate(step - 1), np.float32)
        means = {"loss": metrics.loss / metrics.examples, "accuracy": metrics.correct / metrics.examples, "lr": rates}
        columns: dict[str, Any] = {**means, "factor": self._factors(step - 1)}
        for lane in range(len(self.files)):
            self._write(lane, step, "train", {name: column[lane] for name, column in columns.items()})
        shown = {name: float(np.mean(column)) for name, column in columns.items()}
        self.progress.update(step, {**shown, "factor": float(max(columns["factor"]))})

    def test(self, step: int, found: list[dict[str, float]]) -> None:
        """An evaluation, lane by lane: loss, accuracy; and factor."""
        self.tests = found
        for lane, factor in enumerate(self._factors(step)):
            self._write(lane, step, "test", {**found[lane], "factor": float(factor)})
        accuracies = ", ".join(f"{100 * values['accuracy']:.2f}" for values in found)
        self.progress.note(f"step {step:,}: test accuracies {accuracies} %")

    def branch(self, step: int, shares: Mapping[str, Any]) -> None:
        """The share of each layer's output that the branch carries, [k] by layer; for the lanes with a branch."""
        for lane, training in enumerate(self.trainings):
            if training.cell.config.report.branch:
                self._write(lane, step, "branch", {layer: values[lane] for layer, values in shares.items()})

    def _factors(self, step: int) -> list[np.float32]:
        """f of each lane: 0 for the plain network."""
        factor = np.float32(self.setup.task.factor(step))
        return [factor * np.float32(training.cell.variant == "expanded") for training in self.trainings]

    def _write(self, lane: int, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Nothing more for a lane that failed."""
        if self.trainings[lane].cell.folder not in self.failed:
            self.files[lane].write({"step": step, "kind": kind, **values})

    def close(self) -> None:
        self.progress.close()
        for file in self.files:
            file.close()


def _metrics_file(training: Training, step: int) -> MetricsFile:
    prepare_workdir(training.folder)
    claim(training.folder, training.cell.config)
    file = MetricsFile(training.folder / "metrics.jsonl")
    file.rewind(step)
    return file
