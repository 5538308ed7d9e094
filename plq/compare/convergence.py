"""How soon EXP-Net is where the plain network ends, as plain values: the paper's claim of faster convergence."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from plq.compare.history import Histories, History, Record
from plq.compare.preflight import Facts
from plq.compare.statistics import first_reaching, median_time


def convergence(present: Histories, facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Epochs until the accuracy with which the plain network of the same seed ends, by seed, and their medians.

    ``convergence``: by evaluations; ``training_convergence``: by the accuracy on training images as they were met, in
    means of an epoch, which do not jump about as evaluations do while the learning rate is large. Within them
    ``plain``: of the plain network itself; ``branch``: of EXP-Net as it is at that moment, the way a curve shows it;
    ``alone``: of EXP-Net where f = 0 throughout, when it is a low-precision network. None without both variants;
    by training, a seed whose EXP-Net has no whole epoch with f = 0 is left out.
    """
    if not {"plain", "expanded"} <= present.keys():
        return {"convergence": None, "training_convergence": None}
    steps = facts["plain"].epoch_steps
    both = {seed: (plain, present["expanded"].get(seed)) for seed, plain in sorted(present["plain"].items())}
    pairs = {seed: (plain, expanded) for seed, (plain, expanded) in both.items() if expanded}
    trained = {seed: times for seed, pair in pairs.items() if (times := _by_training(*pair, steps))}
    return {
        "convergence": _over_seeds({seed: _by_evaluations(*pair, steps) for seed, pair in pairs.items()}),
        "training_convergence": _over_seeds(trained),
    }


def _over_seeds(by_seed: dict[int, dict[str, float | None]]) -> dict[str, Any]:
    names = list(next(iter(by_seed.values()), {}))
    return {
        "by_seed": by_seed,
        "median": {name: median_time([times[name] for times in by_seed.values()]) for name in names},
        "never": {name: sum(times[name] is None for times in by_seed.values()) for name in names},
    }


def _by_evaluations(plain: History, expanded: History, epoch_steps: int) -> dict[str, float | None]:
    alone = tuple(record for record in expanded.test if record["factor"] == 0)
    goal = plain.test[-1]["accuracy"]
    curves = {"plain": plain.test, "branch": expanded.test, "alone": alone}
    return {
        name: first_reaching([r["step"] / epoch_steps for r in curve], [r["accuracy"] for r in curve], goal)
        for name, curve in curves.items()
    }


def _by_training(plain: History, expanded: History, epoch_steps: int) -> dict[str, float | None]:
    curves = {"plain": _epochs(plain.train, epoch_steps), "alone": _epochs(expanded.train, epoch_steps)}
    if not all(curves.values()):
        return {}
    goal = list(curves["plain"].values())[-1]
    return {name: first_reaching(list(curve), list(curve.values()), goal) for name, curve in curves.items()}


def _epochs(records: Sequence[Record], epoch_steps: int) -> dict[int, float]:
    """Mean training accuracy of each epoch in which f is 0 throughout; a report counts where it ends."""
    epochs: dict[int, list[Record]] = {}
    for record in records:
        epochs.setdefault(-(-record["step"] // epoch_steps), []).append(record)
    return {
        epoch: statistics.mean(record["accuracy"] for record in found)
        for epoch, found in epochs.items()
        if all(record["factor"] == 0 for record in found)
    }
