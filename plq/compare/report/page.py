"""The report: one HTML page that needs nothing else, and its figures as files."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from plq.compare.aggregate import over_points
from plq.compare.comparison import Comparison
from plq.compare.preflight import Facts
from plq.compare.report import html, sections
from plq.compare.report.figures import Figure
from plq.compare.report.overview import difference_figure, paper_figure
from plq.compare.report.sections import Probes
from plq.compare.report.style import FIGURES, PAGE
from plq.compare.table import LEARNED, OVERALL, difference, reached, spread
from plq.compare.variants import NAMES
from plq.errors import UserError
from plq.storage.output import make_folder_of, require_file, write_text_atomic

REPORT = "report.html"
MADE = "<h2>How this was made</h2>"  # in every report
ALONE = "One network: nothing is compared."
REACHED = "epochs to plain's final accuracy: plain, EXP-Net, EXP-Net at f = 0 (medians)"
HOW = (
    "All variants of a pair have the same schedule, data order, augmentation and seed, and start from the same kept "
    "weights; the plain network is EXP-Net with f = 0 throughout. Final accuracy is that after the last step, on the "
    "whole test split, never the best on the way. Intervals are Student's, at 95 %, of the differences paired by seed.",
    "“Epochs to plain's final” is the first evaluation at which a seed has the accuracy that the plain network of "
    "the same seed ends with. While f is above 0, EXP-Net's accuracy is that of the expanded network, which is not "
    "low-precision; so the table also says when the low-precision network alone, at f = 0, gets there. By training "
    "accuracy: the same of the accuracy on training images, in means of an epoch.",
)


def write_report(found: Comparison, probes: Mapping[str, Probes], directory: Path, command: str) -> Path:
    """Write DIR/report.html and DIR/figures/*.svg; returns the page. probes: by label, variant and seed."""
    general = overview_figures(found)
    by_point = {label: sections.point_figures(found.histories[label], _facts(found, label)) for label in found.points}
    folder = directory / "figures"
    for prefix, figures in [("", general), *((_file_name(label), each) for label, each in by_point.items())]:
        for figure in figures:
            make_folder_of(folder / figure.name)
            write_text_atomic(folder / f"{prefix}{figure.name}.svg", _standalone(figure))
    write_text_atomic(directory / REPORT, page(found, probes, general, by_point, command))
    return directory / REPORT


def require_report(directory: Path, option: str) -> None:
    """Raise UserError unless `write_report` can write there without harm to what it has not written."""
    where = lambda what: f"{option} {directory}: {what}"
    page, folder = directory / REPORT, directory / "figures"
    require_file(
        page, {}, lambda path: MADE in path.read_text("utf-8", errors="replace"), "such a report", where("its")
    )
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{where('its')} {folder}: is a file, allowed a folder")
    is_figure = lambda path: path.read_bytes().startswith(b"<svg ")
    for figure in folder.glob("*.svg"):
        require_file(figure, {}, is_figure, "such a figure", where("its"))


def _facts(found: Comparison, label: str) -> dict[str, Facts]:
    return {variant: found.facts[label, variant] for variant in found.variants}


def _file_name(label: str) -> str:
    return label.replace(" ", "_").replace("/", "-") + "_" if label else ""


def _standalone(figure: Figure) -> str:
    """The figure with its colours, and the font that the page has."""
    head, rest = figure.svg.split(">", 1)
    return f"{head}><style>{FIGURES}</style>{rest}\n"


def overview_figures(found: Comparison) -> list[Figure]:
    """Those over all points."""
    config = {cell.point: cell.config for cell in found.plan.cells if cell.variant != "float"}
    chosen = {cell.point: cell.config for cell in found.plan.cells if cell.variant == "expanded"}
    varied = {field for point in found.plan.points.values() for field in point}
    figures = [difference_figure(found.points), paper_figure(found.points, {**config, **chosen}, varied)]
    return [figure for figure in figures if figure is not None]


def page(
    found: Comparison,
    probes: Mapping[str, Probes],
    general: list[Figure],
    by_point: Mapping[str, list[Figure]],
    command: str,
) -> str:
    """The whole page."""
    title = f"{', '.join(NAMES[variant] for variant in found.variants)}: {found.config}"
    first = next(iter(found.points))
    points = [
        html.folded(
            label or "as configured",
            _point(found, label, probes.get(label, {}), by_point[label]),
            difference(found.points[label]["difference"].get("expanded")),
            "point",
            is_open=label == first,
        )
        for label in found.points
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        html.paragraph(_setting(found), "muted"),
        html.paragraph(verdict(found.points) if len(found.variants) > 1 else ALONE, "verdict"),
        *(html.paragraph(f"Failed: {folder}: {reason}", "warn") for folder, reason in found.failed.items()),
        *(html.paragraph(f"Left out: {line}", "warn") for line in found.plan.left_out),
        _tiles(found.points[first]) if len(found.points) == 1 else "",
        html.figures(general),
        _summary(found) if len(found.points) > 1 else "",
        "<h2>In detail</h2>",
        *points,
        MADE,
        *(html.paragraph(words) for words in HOW if len(found.variants) > 1),
        html.code(command),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{FIGURES}\n{PAGE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(body)}</main></body></html>\n'


def _setting(found: Comparison) -> str:
    """Data, network, length, seeds and device in a line; of what is varied all values."""
    cells, seeds = found.plan.cells, found.plan.seeds
    parts = [
        " and ".join(dict.fromkeys(cell.config.data.name for cell in cells)),
        " and ".join(dict.fromkeys(cell.config.model.name for cell in cells)),
        " and ".join(dict.fromkeys(_length(found.facts[cell.point, cell.variant]) for cell in cells)),
        f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}",
        found.facts[cells[0].point, cells[0].variant].device,
    ]
    return "; ".join(parts)


def _length(facts: Facts) -> str:
    epochs = facts.total_steps / facts.epoch_steps
    return f"{epochs:g} epoch{'s' if epochs != 1 else ''} of {facts.epoch_steps:,} steps"


def verdict(points: Mapping[str, dict[str, Any]]) -> str:
    """What the differences say, and what they do not."""
    pairs = [pair for found in points.values() if (pair := found["difference"].get("expanded"))]
    if not pairs:
        return "Nothing to compare: EXP-Net and the plain network are not both there."
    if max(pair["n"] for pair in pairs) == 1:
        return "One seed: what differs here may be chance."
    if len(pairs) == 1:
        return _verdict_on_one(pairs[0])
    return _verdict_on_all([_side(pair) for pair in pairs]) + _verdict_overall(over_points(points).get("expanded"))


def _verdict_on_one(pair: Mapping[str, Any]) -> str:
    size, side = abs(pair["mean"]), _side(pair)
    interval = f"95 % interval {pair['low']:+.2f} to {pair['high']:+.2f}, {pair['n']} seeds"
    if side == 0:
        return f"No difference shown: EXP-Net ends {pair['mean']:+.2f} points from the plain network ({interval})."
    return f"EXP-Net ends {size:.2f} points {'above' if side > 0 else 'below'} the plain network ({interval})."


def _verdict_on_all(sides: list[int]) -> str:
    above, below, unclear = (sides.count(side) for side in (1, -1, 0))
    return (
        f"By 95 % intervals that exclude 0, EXP-Net ends above the plain network in {above} of {len(sides)} cells and "
        f"below it in {below}; in {unclear} the seeds show no difference. Of such intervals one in twenty is wrong."
    )


def _verdict_overall(pair: dict[str, Any] | None) -> str:
    """On the mean of all cells, if there are seeds that all have."""
    if pair is None or pair["low"] is None:
        return ""
    return f" In the mean over all cells EXP-Net ends {difference(pair)} points from it ({pair['n']} seeds)."


def _side(pair: Mapping[str, Any]) -> int:
    """1 or -1: the interval lies above or below 0; 0: it does not exclude it."""
    if pair["low"] is None:
        return 0
    return (pair["low"] > 0) - (pair["high"] < 0)


def _tiles(found: Mapping[str, Any]) -> str:
    shown = []
    for variant, final in found["final"].items():
        shown.append((spread(final), f"{NAMES[variant]}, final test accuracy, % (n = {final['n']})"))
    for variant, pair in found["difference"].items():
        shown.append((difference(pair), f"{NAMES[variant]} minus plain, points [95 %]"))
    if found["convergence"]:
        shown.append((reached(found["convergence"]).replace(" ", "\u00a0"), REACHED))
    return html.tiles(shown)


def _summary(found: Comparison) -> str:
    """A row per point."""
    others = [variant for variant in found.variants if variant != "plain"]
    header = ["", *(f"{NAMES[v]}, %" for v in found.variants), *(f"{NAMES[v]} - plain [95 %]" for v in others)]
    rows = [
        [
            label or "as configured",
            *(spread(each["final"].get(variant)) for variant in found.variants),
            *(difference(each["difference"].get(variant)) for variant in others),
            reached(each["convergence"]),
            reached(each["training_convergence"]),
        ]
        for label, each in found.points.items()
    ]
    overall = over_points(found.points)
    last = [OVERALL, *[""] * len(found.variants), *(difference(overall.get(variant)) for variant in others), "", ""]
    return "<h2>All cells</h2>" + html.table([*header, REACHED, LEARNED], rows, last if overall else None)


def _point(found: Comparison, label: str, probes: Probes, figures: list[Figure]) -> str:
    facts = _facts(found, label)
    wanted = [training for (point, _, _), training in found.trainings.items() if point == label]
    return "".join([
        html.figures(figures),
        "<h3>Seed by seed</h3>" + sections.seed_table(found.points[label]),
        sections.learned(found.points[label]),
        sections.reestimated_table(probes),
        html.folded("Time", sections.time_table(found.points[label], wanted)),
        html.folded("Codes of weights and activations", sections.codes(probes)) if probes else "",
        html.folded("Mistakes", sections.mistakes(probes)) if probes else "",
        html.folded("Cost", sections.costs(facts)),
        html.folded("Commands", sections.commands(training.command for training in wanted)),
    ])  # fmt: skip
