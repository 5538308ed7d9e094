"""The parts of the report on one point of a comparison."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from plq.compare.diagnostics import Diagnostics
from plq.compare.preflight import Facts
from plq.compare.report import html
from plq.compare.report.figures import BySeed, Figure, branch_figure, curve_figures, removal_figure
from plq.compare.report.overview import code_figure
from plq.compare.runs import Training
from plq.compare.table import difference, spread
from plq.compare.variants import NAMES
from plq.trainer.describe import HEADER, cells_of, totals

MOST_CLASSES = 20
COSTS = (
    "For one image, when the branch is gone. W, in, out: bits of the weights, of what a layer is given and of "
    "what it gives. Bytes in training: of all variables in float32, with the branch; deployed: kernels packed at their "
    "bits. Bit operations: MACs x W x in (van Baalen et al., arXiv 2005.07093)."
)
Found = Mapping[str, Any]
Probes = Mapping[str, Mapping[int, Diagnostics]]  # by variant and seed


def point_figures(histories: Mapping[str, BySeed], facts: Mapping[str, Facts]) -> list[Figure]:
    """Curves, the moment f reaches 0 and the branch, of what is there."""
    present = {variant: seeds for variant, seeds in histories.items() if seeds}
    if not present:
        return []
    longest = facts.get("expanded", next(iter(facts.values())))
    found: list[Figure | None] = list(curve_figures(present, longest))
    if "expanded" in present:
        found += [removal_figure(present, longest), branch_figure(present["expanded"], longest)]
    return [figure for figure in found if figure is not None]


def seed_table(found: Found) -> str:
    """A row per seed: final accuracies, their difference, epochs until plain's final, and what removal cost."""
    finals, pair, times = found["final"], found["difference"].get("expanded"), found["convergence"]
    header = ["seed", *(f"{NAMES[variant]}, %" for variant in finals), *(["difference"] if pair else [])]
    header += ["plain: epoch of its final", "EXP-Net: reached at", "with f = 0 at"] if times else []
    header += ["before f = 0, %", "lowest after, %", "recovered after, epochs"] if found["removal"] else []
    seeds = sorted({seed for final in finals.values() for seed in final["by_seed"]})
    rows = [_seed_row(seed, found) for seed in seeds]
    total: list[Any] = [
        "mean; median" if times else "mean",
        *(spread(final) for final in finals.values()),
        *([difference(pair)] if pair else []),
    ]
    if times:
        total += [_epoch(time) for time in times["median"].values()]
    return html.table(header, rows, [*total, *[""] * (len(header) - len(total))])


def _seed_row(seed: int, found: Found) -> list[Any]:
    pair, times, pruned_leaves = found["difference"].get("expanded"), found["convergence"], found["removal"]
    row: list[Any] = [str(seed), *(final["by_seed"].get(seed) for final in found["final"].values())]
    if pair:
        by_seed = dict(zip(pair["seeds"], pair["differences"], strict=True))
        row.append(f"{by_seed[seed]:+.2f}" if seed in by_seed else None)
    if times:
        reached = times["by_seed"].get(seed)
        row += [_epoch(time) for time in reached.values()] if reached else [None] * 3
    if pruned_leaves:
        cost = pruned_leaves.get(seed)
        row += [cost["before"], cost["lowest"], _epoch(cost["recovered"])] if cost else [None] * 3
    return row


def learned(found: Found) -> str:
    """A sentence on convergence by training accuracy; empty where there is none to judge."""
    times = found["training_convergence"]
    if not times or not times["by_seed"]:
        return ""
    plain, alone = (
        f"{_epoch(times['median'][name])} ({', '.join(_epoch(each[name]) for each in times['by_seed'].values())})"
        for name in ("plain", "alone")
    )
    words = f"Epochs to plain's last training accuracy, in means of an epoch: plain {plain}, EXP-Net at f = 0 {alone}"
    return html.paragraph(f"{words}; the median, and each seed.")


def _epoch(time: float | None) -> str:
    return "never" if time is None else f"{time:.3g}"


def time_table(found: Found, trainings: Iterable[Training]) -> str:
    """Seconds of a training and milliseconds of a step, each with its ratio to the plain network."""
    plain = found["time"].get("plain", {})
    header = ["", "training, s", "of plain", "step with branch, ms", "of plain", "step without, ms", "of plain"]
    rows = [[NAMES[variant], *_time_cells(times, plain)] for variant, times in found["time"].items()]
    note = "Medians. Of a step: between two reports with no evaluation or compilation between them. Nothing else may "
    note += "have run on the machine, or the times mean little. Training: compilation and evaluations included."
    joint = [how for training in trainings if training.done and (how := training.how())]
    if joint:
        took = ", ".join(sorted({f"{how['seconds']:.0f} s" for how in joint}))
        note = f"{len(joint)} trainings ran side by side in one program, which took {took}: none has a time of its own."
    return html.table(header, rows) + html.paragraph(note, "muted")


def _time_cells(times: Found, plain: Found) -> list[str | None]:
    cells: list[str | None] = []
    for name, scale, base in (
        ("training", 1, "training"),
        ("step_with_branch", 1000, "step_without"),
        ("step_without", 1000, "step_without"),
    ):
        value, of = times[name], plain.get(base)
        cells += [f"{scale * value:.1f}" if value else None, f"{value / of:.2f}" if value and of else None]
    return cells


def reestimated_table(probes: Probes) -> str:
    """Accuracy with batch statistics taken anew; empty if that was not asked for."""
    rows = []
    for variant, by_seed in probes.items():
        both = [(100 * p["accuracy"], 100 * p["reestimated"]) for p in by_seed.values() if p["reestimated"] is not None]
        if both:
            as_trained, anew = (float(np.mean(column)) for column in zip(*both, strict=True))
            rows.append([NAMES[variant], len(both), as_trained, anew, f"{anew - as_trained:+.2f}"])
    if not rows:
        return ""
    header = ["", "n", "as trained, %", "re-estimated, %", "difference"]
    return "<h3>Batch statistics averaged anew</h3>" + html.table(header, rows)


def codes(probes: Probes) -> str:
    """Which codes weights and activations use, of the first seed of each variant, layer by layer."""
    first = {variant: by_seed[min(by_seed)] for variant, by_seed in probes.items() if by_seed}
    first = {variant: probe for variant, probe in first.items() if probe["weights"] or probe["activations"]}
    parts = []
    for what in ("weights", "activations"):
        layers = dict.fromkeys(layer for probe in first.values() for layer in probe[what])
        pictures = [_layer_codes(layer, what, first) for layer in layers]
        inner = "".join(f"<div>{picture}</div>" for picture in pictures)
        parts.append(f'<h3>Codes of {what}</h3><div class="codes">{inner}</div>' if inner else "")
    note = "Share of each code, in stripped models of the first seed; activations on one batch of test images."
    if not any(parts):
        return ""
    return html.keys({variant: NAMES[variant] for variant in first}) + "".join(parts) + html.paragraph(note, "muted")


def _layer_codes(layer: str, what: str, probes: Mapping[str, Diagnostics]) -> str:
    """The figure of one layer, of the variants that have it."""
    return code_figure(layer, _used({v: probe[what][layer] for v, probe in probes.items() if layer in probe[what]}))


def _used(shares: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Without the codes above the highest that is used at all: ternary weights have three, in two bits."""
    highest = max(int(np.flatnonzero(values)[-1]) for values in shares.values())
    return {variant: values[: highest + 1] for variant, values in shares.items()}


def mistakes(probes: Probes) -> str:
    """Confusion matrices over all seeds, and the surest mistakes of the first."""
    parts = []
    for variant, by_seed in probes.items():
        if not by_seed:
            continue
        first = by_seed[min(by_seed)]
        counts = np.sum([probe["confusion"] for probe in by_seed.values()], axis=0)
        parts.append(f"<h3>{NAMES[variant]}: true class (row), taken for (column), {len(by_seed)} seeds together</h3>")
        parts.append(_confusion(counts, first["class_names"]))
        shown = [(e["image"], _mistake(e, first["class_names"])) for e in first["errors"]]
        parts.append(html.paragraph(f"The surest mistakes of seed {min(by_seed)}:", "muted") + html.images(shown))
    return "".join(parts)


def _mistake(error: Mapping[str, Any], names: Sequence[str]) -> str:
    return f"{names[error['label']]}, taken for {names[error['taken_for']]} ({100 * error['certain']:.0f} %)"


def _confusion(counts: np.ndarray, names: Sequence[str]) -> str:
    """The whole matrix, or of many classes the pairs that are most confused."""
    if len(names) <= MOST_CLASSES:
        return html.confusion(counts.tolist(), names)
    wrong = counts * (1 - np.eye(len(names), dtype=int))
    pairs = [divmod(int(place), len(names)) for place in np.argsort(-wrong, axis=None)[:MOST_CLASSES]]
    rows = [[names[i], names[j], int(wrong[i, j]), f"{100 * wrong[i, j] / counts[i].sum():.1f} %"] for i, j in pairs]
    return html.table(["true class", "taken for", "images", "of the class"], rows)


def costs(facts: Mapping[str, Facts]) -> str:
    """What each variant costs as it is served, and the layers of the low-precision network."""
    total = {variant: totals(each.layers) for variant, each in facts.items()}
    header = ["", "parameters", "of the branch", "bytes in training", "bytes deployed", "MACs", "bit operations"]
    names = ("parameters", "ancillary_parameters", "bytes_training", "bytes_deployed", "macs", "bit_operations")
    rows = [[NAMES[variant], *(sums[name] for name in names)] for variant, sums in total.items()]
    chosen = next((variant for variant in ("expanded", "plain") if variant in facts), "float")
    *cells, last = cells_of(facts[chosen].layers)
    return html.table(header, rows) + html.paragraph(COSTS, "muted") + html.table(HEADER, cells, last)


def commands(given: Iterable[Sequence[str]]) -> str:
    return html.code("\n\n".join(shlex.join(command) for command in given))
