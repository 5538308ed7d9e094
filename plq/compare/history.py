"""What the trainings wrote down: curves, and the time that they took."""

import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plq.report.metrics import read_metrics

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class History:
    """The records of one training by kind ("train", "test", "branch"), each with its ``step``; rising."""

    train: tuple[Record, ...]
    test: tuple[Record, ...]
    branch: tuple[Record, ...]
    timing: tuple[Record, ...]


Histories = Mapping[str, Mapping[int, History]]  # by variant and seed


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds: of the whole training (compilation and evaluations included), and of a step, the median of what was
    measured, with f above 0 and at f = 0; None where nothing was.
    """

    training: float | None
    step_with_branch: float | None
    step_without: float | None


def read_history(folder: Path) -> History:
    """Raises UserError if a file is damaged."""
    kinds: dict[str, list[Record]] = {"train": [], "test": [], "branch": []}
    for record in read_metrics(folder / "metrics.jsonl"):
        kinds.setdefault(record["kind"], []).append(record)
    file = folder / "timing.jsonl"
    kinds["timing"] = read_metrics(file) if file.exists() else []
    return History(**{field.name: tuple(kinds[field.name]) for field in dataclasses.fields(History)})


def final_test(folder: Path) -> Record:
    """The last evaluation."""
    return read_history(folder).test[-1]


def timing(records: Sequence[Record], zero_step: int, epoch_steps: int) -> Timing:
    """Of the records of timing.jsonl, whose clock starts anew where a training was interrupted.

    A step counts that lies between two reports with no evaluation and no compilation between them: what lies
    behind an end of an epoch, or behind the end of the branch, is left out.
    """
    total = 0.0
    steps: dict[bool, list[float]] = {True: [], False: []}
    for before, after in itertools.pairwise([{"step": 0, "seconds": 0.0}, *records]):
        anew = after["seconds"] < before["seconds"] or before["step"] == 0
        total += after["seconds"] if anew else after["seconds"] - before["seconds"]
        begin, end = before["step"], after["step"]
        evaluated = begin // epoch_steps < (end - 1) // epoch_steps or begin % epoch_steps == 0
        if not anew and not evaluated and not begin <= zero_step < end:
            steps[end <= zero_step].append((after["seconds"] - before["seconds"]) / (end - begin))
    medians = {with_branch: statistics.median(found) if found else None for with_branch, found in steps.items()}
    return Timing(total or None, medians[True], medians[False])
