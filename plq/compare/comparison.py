"""A whole comparison in memory: what was planned, what ran, and what it found."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from plq.compare.aggregate import aggregate, over_points
from plq.compare.history import History, read_history
from plq.compare.plan import Plan
from plq.compare.preflight import Facts
from plq.compare.runs import Training


@dataclasses.dataclass(frozen=True)
class Comparison:
    """``points``: findings by label. ``histories``: by label, variant and seed, of the trainings that are done.
    ``facts``: by label and variant. ``trainings``: by label, variant and seed. ``failed``: why, by folder.
    """

    config: str
    plan: Plan
    points: dict[str, dict[str, Any]]
    histories: dict[str, dict[str, dict[int, History]]]
    facts: dict[tuple[str, str], Facts]
    trainings: dict[tuple[str, str, int], Training]
    failed: dict[str, str]

    @property
    def variants(self) -> tuple[str, ...]:
        return self.plan.variants

    def to_json(self) -> dict[str, Any]:
        """The numbers, for other programs."""
        return {
            "seeds": self.plan.seeds,
            "left_out": self.plan.left_out,
            "failed": self.failed,
            "commands": {training.cell.folder: training.command for training in self.trainings.values()},
            "points": self.points,
            "overall": over_points(self.points),
        }


def collect(
    config: str,
    plan: Plan,
    trainings: Sequence[Training],
    facts: dict[tuple[str, str], Facts],
    failed: Mapping[str, str],
) -> Comparison:
    """Read what the trainings wrote. config: as it was given."""
    by_folder = {training.cell.folder: training for training in trainings}
    read = {folder: read_history(training.folder) for folder, training in by_folder.items() if training.done}
    histories: dict[str, dict[str, dict[int, History]]] = {
        label: {variant: {} for variant in plan.variants} for label in plan.points
    }
    for cell in plan.cells:
        if cell.folder in read:
            histories[cell.point][cell.variant][cell.seed] = read[cell.folder]
    of_point = lambda label: {variant: facts[label, variant] for variant in plan.variants}
    points = {label: aggregate(by_variant, of_point(label)) for label, by_variant in histories.items()}
    of_cell = {(cell.point, cell.variant, cell.seed): by_folder[cell.folder] for cell in plan.cells}
    return Comparison(config, plan, points, histories, facts, of_cell, dict(failed))
