"""The findings as Markdown tables, for a terminal and for files of results."""

from collections.abc import Mapping
from typing import Any

from plq.compare.aggregate import over_points
from plq.compare.variants import NAMES

OVERALL = "mean over all cells"
REACHED = "epochs to plain's final: plain, EXP-Net, with f = 0"
LEARNED = "by training accuracy: plain, with f = 0"


def markdown(points: Mapping[str, dict[str, Any]], variants: tuple[str, ...]) -> str:
    """Final test accuracy, differences to the plain network, and convergence: a row per point, and one over all."""
    others = [variant for variant in variants if variant != "plain" and "plain" in variants]
    header = ["", "n", *(NAMES[variant] for variant in variants), *(f"{NAMES[other]} - plain" for other in others)]
    timed = {"plain", "expanded"} <= set(variants)
    header += [REACHED, LEARNED] if timed else []
    rows = [_row(label, found, variants, others, timed) for label, found in points.items()]
    if overall := over_points(points):
        empty = [""] * len(variants)
        row = [OVERALL, "", *empty, *(difference(overall.get(other)) for other in others), *([""] * 2 if timed else [])]
        rows.append(row)
    return "\n".join(_line(cells) for cells in [header, ["---"] * len(header), *rows])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _row(label: str, found: dict[str, Any], variants: tuple[str, ...], others: list[str], timed: bool) -> list[str]:
    counts = {final["n"] for final in found["final"].values()}
    cells = [label or "as configured", " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"]
    cells += [spread(found["final"].get(variant)) for variant in variants]
    cells += [difference(found["difference"].get(other)) for other in others]
    return [*cells, reached(found["convergence"]), reached(found["training_convergence"])] if timed else cells


def spread(final: dict[str, Any] | None) -> str:
    """As 82.21 ± 0.75: mean and standard deviation."""
    if final is None:
        return "-"
    return f"{final['mean']:.2f}" + ("" if final["sd"] is None else f" ± {final['sd']:.2f}")


def difference(pair: dict[str, Any] | None) -> str:
    """As +1.61 [1.54, 1.68]: mean and 95 % confidence interval."""
    if pair is None:
        return "-"
    interval = "" if pair["low"] is None else f" [{pair['low']:.2f}, {pair['high']:.2f}]"
    return f"{pair['mean']:+.2f}{interval}"


def reached(convergence: dict[str, Any] | None) -> str:
    """Median epochs, as of `plq.compare.convergence`; "never" where at least half of the seeds never got there."""
    if convergence is None or not convergence["by_seed"]:
        return "-"
    return ", ".join("never" if time is None else f"{time:g}" for time in convergence["median"].values())
