"""Curves over the seeds of a variant: means with a band of one standard deviation."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plq.compare.history import History, Record

MOST_POINTS = 240


class Mean(NamedTuple):
    """At ``x`` (epochs): the mean over the seeds, and it minus and plus one standard deviation."""

    x: float
    mean: float
    low: float
    high: float


def over_seeds(
    histories: Mapping[int, History], kind: str, name: str, epoch_steps: int, scale: float = 1
) -> list[Mean]:
    """A figure of the records of one kind, at the steps that all seeds have and that it is known at."""
    by_step: dict[int, list[float]] = {}
    for history in histories.values():
        records: Sequence[Record] = getattr(history, kind)
        for record in records:
            if record.get(name) is not None:
                by_step.setdefault(record["step"], []).append(scale * record[name])
    return [
        _mean(step / epoch_steps, values) for step, values in sorted(by_step.items()) if len(values) == len(histories)
    ]


def _mean(x: float, values: list[float]) -> Mean:
    mean, sd = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    return Mean(x, mean, mean - sd, mean + sd)


def thinned(points: Sequence[Mean], most: int = MOST_POINTS) -> list[Mean]:
    """At most so many points, each the average of its neighbours."""
    size = -(-len(points) // most) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [Mean(*(statistics.fmean(column) for column in zip(*part, strict=True))) for part in parts]
