"""What several seeds say: means, paired differences with their confidence, epochs until an accuracy is reached."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of n values; ``sd`` is None for one value."""

    n: int
    mean: float
    sd: float | None


@dataclasses.dataclass(frozen=True)
class Paired(Summary):
    """Of differences, seed by seed, with the confidence interval of their mean; None for one pair.

    ``low`` and ``high``: mean -+ t * sd / sqrt(n), t the two-sided 95 % quantile of Student's distribution with
    n - 1 degrees of freedom.
    """

    differences: tuple[float, ...]
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(len(values), float(np.mean(values)), sd)


def paired(baseline: Sequence[float], other: Sequence[float]) -> Paired:
    """other - baseline. Both in the order of the seeds, at least one pair."""
    return of_differences([b - a for a, b in zip(baseline, other, strict=True)])


def of_differences(differences: Sequence[float]) -> Paired:
    """Of at least one, a difference for each seed."""
    n, mean, sd = dataclasses.astuple(summary(differences))
    if sd is None:
        return Paired(n, mean, sd, tuple(differences), None, None)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Paired(n, mean, sd, tuple(differences), mean - half, mean + half)


def first_reaching(times: Sequence[float], values: Sequence[float], target: float) -> float | None:
    """The first time at which the value is the target or more; None if it never is."""
    return next((time for time, value in zip(times, values, strict=True) if value >= target), None)


def median_time(times: Sequence[float | None]) -> float | None:
    """The median over seeds, where None (never) counts as later than all others; itself None if that is the middle.

    Of an even number the later of the middle two.
    """
    ordered = sorted(math.inf if time is None else time for time in times)
    middle = ordered[len(ordered) // 2]
    return None if math.isinf(middle) else middle


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What the end of the branch did to test accuracy, from evaluations at ``times`` (epochs).

    before: the last accuracy with f > 0. lowest: the lowest up to and with the recovery (or the end).
    recovered: epochs from f = 0 until the accuracy was ``before`` or more; None if it never was.
    """

    before: float
    lowest: float
    recovered: float | None


def removal_cost(
    times: Sequence[float], accuracies: Sequence[float], factors: Sequence[float], zero: float
) -> PruneReport | None:
    """``zero``: the epoch at which f became 0. None without an evaluation both before and after it."""
    with_branch = [accuracy for accuracy, f in zip(accuracies, factors, strict=True) if f > 0]
    after = [(time, value) for time, value, f in zip(times, accuracies, factors, strict=True) if f == 0]
    if not with_branch or not after:
        return None
    before = with_branch[-1]
    reached = first_reaching([time for time, _ in after], [value for _, value in after], before)
    fallen = [value for time, value in after if reached is None or time <= reached]
    return PruneReport(before, min(fallen), None if reached is None else reached - zero)
