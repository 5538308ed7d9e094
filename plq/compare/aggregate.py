"""What a comparison found at one point of its grid, as plain values: the numbers of every table and figure."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from plq.compare.convergence import convergence
from plq.compare.history import Histories, History, Timing, timing
from plq.compare.preflight import Facts
from plq.compare.statistics import of_differences, paired, removal_cost, summary


def aggregate(histories: Histories, facts: Mapping[str, Facts]) -> dict[str, Any]:
    """JSON values. Accuracies in %, times in epochs of the training set or in seconds.

    Args:
        histories: of the finished trainings; a variant without any is left out. facts: by variant.
    """
    present = {variant: by_seed for variant, by_seed in histories.items() if by_seed}
    finals = {variant: _finals(by_seed) for variant, by_seed in present.items()}
    return {
        "final": {variant: _final(by_seed) for variant, by_seed in finals.items()},
        "difference": _differences(finals),
        **convergence(present, facts),
        "removal": _removal(present.get("expanded", {}), facts.get("expanded")),
        "time": {variant: _time(by_seed, facts[variant]) for variant, by_seed in present.items()},
    }


def _finals(by_seed: Mapping[int, History]) -> dict[int, float]:
    """Test accuracy after the last step."""
    return {seed: 100 * history.test[-1]["accuracy"] for seed, history in sorted(by_seed.items())}


def _final(by_seed: dict[int, float]) -> dict[str, Any]:
    return {**dataclasses.asdict(summary(list(by_seed.values()))), "by_seed": by_seed}


def _differences(finals: Mapping[str, dict[int, float]]) -> dict[str, Any]:
    """Of each other variant to the plain network, over the seeds that both have."""
    plain, found = finals.get("plain", {}), {}
    for variant, by_seed in finals.items():
        seeds = [seed for seed in by_seed if seed in plain]
        if variant != "plain" and seeds:
            pair = paired([plain[seed] for seed in seeds], [by_seed[seed] for seed in seeds])
            found[variant] = {**dataclasses.asdict(pair), "seeds": seeds}
    return found


def over_points(points: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The difference of each other variant to the plain network, at each seed the mean over all points.

    The interval is over seeds, so it speaks of these very points. Seeds that some point lacks are left out; empty with
    fewer than two points, or without a seed that all have.
    """
    found = {}
    for variant in dict.fromkeys(variant for point in points.values() for variant in point["difference"]):
        pairs = [point["difference"].get(variant, {"seeds": [], "differences": []}) for point in points.values()]
        by_seed = [dict(zip(pair["seeds"], pair["differences"], strict=True)) for pair in pairs]
        seeds = sorted(set.intersection(*(set(each) for each in by_seed)))
        if seeds and len(points) > 1:
            means = [statistics.mean(each[seed] for each in by_seed) for seed in seeds]
            found[variant] = {**dataclasses.asdict(of_differences(means)), "seeds": seeds}
    return found


def _removal(by_seed: Mapping[int, History], facts: Facts | None) -> dict[int, Any]:
    """What the end of the branch cost, by seed."""
    found = {}
    for seed, history in sorted(by_seed.items()):
        assert facts is not None
        columns = [[record[name] for record in history.test] for name in ("step", "accuracy", "factor")]
        times, accuracies = [step / facts.epoch_steps for step in columns[0]], [100 * value for value in columns[1]]
        cost = removal_cost(times, accuracies, columns[2], facts.zero_step / facts.epoch_steps)
        if cost is not None:
            found[seed] = dataclasses.asdict(cost)
    return found


def _time(by_seed: Mapping[int, History], facts: Facts) -> dict[str, float | None]:
    """Medians over the seeds."""
    found = [timing(history.timing, facts.zero_step, facts.epoch_steps) for history in by_seed.values()]
    fields = [field.name for field in dataclasses.fields(Timing)]
    columns = {name: [value for each in found if (value := getattr(each, name)) is not None] for name in fields}
    return {name: statistics.median(values) if values else None for name, values in columns.items()}
