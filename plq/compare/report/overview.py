"""The figures over all points of a comparison: differences, and the paper's figure of accuracy by width and bits."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from plq.compare.aggregate import over_points
from plq.compare.report.figures import WIDTH, Figure, legend
from plq.compare.report.published import published
from plq.compare.report.svg import Axes, circle, picture, rectangle, segment, span, text
from plq.compare.table import OVERALL
from plq.compare.variants import NAMES
from plq.config.schema import Config

PAPER_FIELDS = {"quant.weights", "quant.weight_bits", "quant.activation_bits", "model.width"}
WEIGHTS = {"dorefa": "DoReFa", "xnor": "XNOR", "syq": "SYQ", "lsq": "LSQ", "apot": "APoT", "sawb": "SAWB"}
ROW, PANEL = 34, (220, 176)
Found = Mapping[str, Any]


def difference_figure(points: Mapping[str, Found]) -> Figure | None:
    """EXP-Net minus plain at every point, and over all of them; None without pairs."""
    rows = {label: pair for label, found in points.items() if (pair := found["difference"].get("expanded"))}
    if overall := over_points(points).get("expanded"):
        rows[OVERALL] = overall
    if not rows:
        return None
    height = ROW * len(rows)
    axes = Axes(
        14, 8, WIDTH - 28, height, span([0.0, *(end for pair in rows.values() for end in _extent(pair))]), (0, 1)
    )
    zero = axes.at(0, 0)[0]
    parts = [axes.vertical(name="EXP-Net minus plain, points"), segment(zero, 8, zero, 8 + height, "mark")]
    parts += [_difference(axes, label, pair, 8 + ROW * index) for index, (label, pair) in enumerate(rows.items())]
    svg = picture(WIDTH, height + 48, parts, "difference between EXP-Net and the plain network")
    intervals = any(pair["low"] is not None for pair in rows.values())
    caption = "A dot for each seed, a ring for their mean" + (", a line for its 95 % interval." if intervals else ".")
    return Figure("difference", "EXP-Net minus plain, final test accuracy", svg, caption)


def _extent(pair: Found) -> list[float]:
    """What a row must show: all seeds, and of the interval no more than would make them unreadable."""
    seeds, low, high = pair["differences"], pair["low"], pair["high"]
    if low is None:
        return list(seeds)
    reach = 2 * (max(seeds) - min(seeds))
    return [*seeds, max(low, min(seeds) - reach), min(high, max(seeds) + reach)]


def _difference(axes: Axes, label: str, pair: Found, top: float) -> str:
    y = top + 24
    inside = lambda value: axes.at(min(max(value, axes.x[0]), axes.x[1]), 0)[0]
    parts = [text(axes.left, top + 12, label or "as configured", "name")]
    if pair["low"] is not None:
        parts.append(segment(inside(pair["low"]), y, inside(pair["high"]), y, "expanded line"))
    for seed, value in zip(pair["seeds"], pair["differences"], strict=True):
        parts.append(circle(inside(value), y, 2.8, "expanded dot", f"seed {seed}: {value:+.2f}"))
    return "".join([*parts, circle(inside(pair["mean"]), y, 5.5, "expanded ring", f"mean {pair['mean']:+.2f}")])


class Place(NamedTuple):
    """One width of a panel: what was found there, and the published pair (plain, EXP-Net) if there is one."""

    width: float
    final: Mapping[str, Any]
    published: tuple[float, float] | None


def paper_figure(points: Mapping[str, Found], config: Mapping[str, Config], varied: set[str]) -> Figure | None:
    """Accuracy by width, one panel for each weight quantizer and W/A, as the paper shows it.

    None where other fields are varied, or where there is a single point with no published one to lay beside it.
    """
    panels: dict[str, list[Place]] = {}
    for label, chosen in sorted(config.items(), key=lambda item: item[1].model.width):
        place = Place(chosen.model.width, points[label]["final"], published(chosen))
        panels.setdefault(_panel_name(chosen), []).append(place)
    places = [place for panel in panels.values() for place in panel]
    known = any(place.published for place in places)
    if not varied <= PAPER_FIELDS or (len(places) < 2 and not known):
        return None
    variants = [variant for variant in NAMES if any(variant in place.final for place in places)]
    widths = sorted({place.width for place in places})
    y = span([value for place in places for value in _values(place)])
    parts = [legend(variants), _published_legend(legend_end(variants)) if known else ""]
    for index, (name, panel) in enumerate(panels.items()):
        parts.append(_panel(name, panel, widths, y, (PANEL[0] * (index % 2), 26 + PANEL[1] * (index // 2))))
    height = 26 + PANEL[1] * -(-len(panels) // 2)
    caption = "Final test accuracy in %; means over seeds, bars of one standard deviation."
    caption += f" Published: {PUBLISHED_REMARK}" if known else ""
    svg = picture(WIDTH, height, parts, "accuracy by width and bits")
    return Figure("widths", "Accuracy by width, weight quantizer and W/A bits", svg, caption)


PUBLISHED_REMARK = "read off the authors' figure, error about 0.03; 200 epochs on train and extra images together."


def _panel_name(chosen: Config) -> str:
    quant = chosen.quant
    return f"{WEIGHTS.get(quant.weights, quant.weights)} {quant.weight_bits}/{quant.activation_bits}"


def _values(place: Place) -> Sequence[float]:
    """Everything that is drawn at this place."""
    sds = [(final["mean"], final["sd"] or 0.0) for final in place.final.values()]
    return [*(mean - sd for mean, sd in sds), *(mean + sd for mean, sd in sds), *(place.published or ())]


def legend_end(variants: Sequence[str]) -> float:
    """Where the next entry of the row begins."""
    return 46 + sum(34 + 7.2 * len(NAMES[variant]) for variant in variants)


def _published_legend(left: float) -> str:
    return segment(left, 7, left + 18, 7, "published line") + text(left + 23, 12, "published (plain, EXP-Net)")


def _panel(name: str, places: list[Place], widths: list[float], y: tuple[float, float], corner: tuple[int, int]) -> str:
    axes = Axes(corner[0] + 38, corner[1] + 18, PANEL[0] - 50, PANEL[1] - 48, (-0.6, len(widths) - 0.4), y)
    parts = [
        text(corner[0] + 38, corner[1] + 10, name, "strong"),
        axes.horizontal(count=4),
        axes.vertical(labels=False),
    ]
    bottom = axes.top + axes.height + 15
    parts += [text(axes.at(i, 0)[0], bottom, f"{width:g}x", "tick", "middle") for i, width in enumerate(widths)]
    for which, css in enumerate(("ring", "dot")):
        line = [(widths.index(p.width), p.published[which]) for p in places if p.published]
        parts.append(axes.line(line, "published") if len(line) > 1 else "")
        parts += [circle(*axes.at(x, value), 3, f"published {css}", f"published: {value}") for x, value in line]
    for variant in NAMES:
        finals = [(widths.index(p.width), p.final[variant]) for p in places if variant in p.final]
        parts.append(_series(axes, variant, finals) if finals else "")
    return "".join(parts)


def _series(axes: Axes, variant: str, finals: Sequence[tuple[float, Found]]) -> str:
    """The means of one variant, joined, each with its standard deviation."""
    shift = {"plain": -0.1, "expanded": 0.1}.get(variant, 0.0)
    parts = [axes.line([(x + shift, final["mean"]) for x, final in finals], variant)]
    for x, final in finals:
        at, sd = axes.at(x + shift, final["mean"]), final["sd"] or 0.0
        ends = (axes.at(x, final["mean"] - sd)[1], axes.at(x, final["mean"] + sd)[1])
        parts.append(segment(at[0], ends[0], at[0], ends[1], f"{variant} thin"))
        parts.append(circle(*at, 3.4, f"{variant} dot", f"{NAMES[variant]}: {final['mean']:.2f} ± {sd:.2f}"))
    return "".join(parts)


def code_figure(layer: str, shares: Mapping[str, Sequence[float]]) -> str:
    """How often each code is used in one layer: a group of bars for each code, a bar for each variant."""
    codes = max(len(values) for values in shares.values())
    axes = Axes(30, 20, 126, 70, (0, codes), (0, max(max(values) for values in shares.values()) * 1.05))
    parts = [text(30, 12, layer, "strong"), axes.horizontal(count=2), axes.vertical(labels=False)]
    bar = (0.84 if codes <= 32 else 1.0) / len(shares)
    for place, (variant, values) in enumerate(shares.items()):
        for code, share in enumerate(values):
            left, top = axes.at(code + 0.08 * (codes <= 32) + place * bar, share)
            width, height = bar * axes.width / codes, axes.top + axes.height - top
            title = f"{NAMES[variant]}, code {code}: {100 * share:.1f} %"
            parts.append(rectangle(left, top, width, height, f"{variant} bar", title))
    parts += [text(axes.at(code + 0.5, 0)[0], 104, str(code), "tick", "middle") for code in _named_codes(codes)]
    return picture(164, 108, parts, f"codes of {layer}")


def _named_codes(codes: int) -> list[int]:
    return list(range(codes)) if codes <= 8 else [0, codes // 2, codes - 1]
