"""The share of profiled steps in which a collective operation was under way, from a profile of CPU devices."""

from pathlib import Path
from typing import Any

# What each device sends for an operation on n of them: so many times (n - 1) / n of its bytes, as a ring does it.
COLLECTIVES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1, "collective-permute": 1}
STEP = "a step"  # the annotation around each step
SHARES = ("in flight", "exposed")
Span = tuple[float, float]  # from and to, ns


def events(folder: Path) -> list[Any]:
    """What the one profile in a folder has."""
    from jax.profiler import ProfileData

    (file,) = folder.glob("**/*.xplane.pb")
    planes = ProfileData.from_file(str(file)).planes
    return [event for plane in planes for line in plane.lines for event in line.events]


def shares(found: list[Any]) -> dict[str, float]:
    """Of the time of the steps: with a collective operation under way, and with nothing else beside it."""
    steps = united([(event.start_ns, event.end_ns) for event in found if event.name == STEP])
    collective, others = (within(each, steps) for each in spans(found))
    exposed = length(united([*collective, *others])) - length(others)
    return dict(zip(SHARES, (length(collective) / length(steps), exposed / length(steps)), strict=True))


def spans(found: list[Any]) -> tuple[list[Span], list[Span]]:
    """When collective operations ran, and when others."""
    result: tuple[list[Span], list[Span]] = ([], [])
    for event in found:
        if "hlo_op" in dict(event.stats):
            result[not event.name.startswith(tuple(COLLECTIVES))].append((event.start_ns, event.end_ns))
    return result


def within(found: list[Span], steps: list[Span]) -> list[Span]:
    """What of them falls into a step, without overlap."""
    return united([(max(a, c), min(b, d)) for a, b in found for c, d in steps if max(a, c) < min(b, d)])


def united(found: list[Span]) -> list[Span]:
    """The same stretches of time without overlap, in order."""
    result: list[Span] = []
    for begin, end in sorted(found):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def length(found: list[Span]) -> float:
    """Of stretches without overlap."""
    return sum(end - begin for begin, end in found)
