"""The figures of one point of a comparison: curves, the end of the branch, what the branch carries."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from plq.compare.history import History
from plq.compare.preflight import Facts
from plq.compare.report.curves import Mean, over_seeds, thinned
from plq.compare.report.svg import Axes, Points, circle, picture, rectangle, segment, span, text
from plq.compare.variants import NAMES

WIDTH, LEFT, RIGHT, TOP = 440, 46, 10, 26
BySeed = Mapping[int, History]
Curves = Mapping[str, Sequence[Mean]]  # by variant


@dataclasses.dataclass(frozen=True)
class Figure:
    """``name``: of its file."""

    name: str
    title: str
    svg: str
    caption: str


def curve_figures(histories: Mapping[str, BySeed], facts: Facts) -> list[Figure]:
    """Test accuracy, and test and training loss, by epoch; f below each. histories: by variant, one seed at least."""
    find = lambda kind, name, scale=1: {
        variant: over_seeds(seeds, kind, name, facts.epoch_steps, scale) for variant, seeds in histories.items()
    }
    train = {variant: thinned(points) for variant, points in find("train", "loss").items()}
    n = min(len(seeds) for seeds in histories.values())
    bands = f"Mean of {n} seeds; bands: one standard deviation." if n > 1 else "One seed."
    accuracy = _curves(find("test", "accuracy", 100), {}, facts, "test accuracy by epoch")
    loss = _curves(find("test", "loss"), train, facts, "loss by epoch")
    while_branch = "While f is above 0, EXP-Net's is that of the expanded network."
    return [
        Figure("accuracy", "Test accuracy, %", accuracy, f"{bands} {while_branch}"),
        Figure("loss", "Loss, nats", loss, f"Test solid, training dotted. {bands}"),
    ]


def _curves(solid: Curves, dotted: Curves, facts: Facts, label: str) -> str:
    """Lines with bands over epochs, and below them f."""
    end = facts.total_steps / facts.epoch_steps
    shown = [value for points in solid.values() for point in points for value in (point.low, point.high)]
    shown += [point.mean for points in dotted.values() for point in points[len(points) // 20 :]]
    axes = Axes(LEFT, TOP, WIDTH - LEFT - RIGHT, 190, (0, end), span(shown))
    parts = [legend(solid), axes.horizontal(), axes.vertical(labels=False)]
    parts += [axes.band([(p.x, p.low, p.high) for p in points], variant) for variant, points in solid.items()]
    parts += [axes.line(_means(points), f"{variant} dotted") for variant, points in dotted.items()]
    for variant, points in solid.items():
        parts.append(axes.line(_means(points), variant))
        parts += [_dot(axes, point, variant) for point in (points if len(points) <= 30 else points[-1:])]
    return picture(WIDTH, 316, [*parts, factor_strip(facts, (0, end), 232)], label)


def _means(points: Iterable[Mean]) -> Points:
    return [(point.x, point.mean) for point in points]


def _dot(axes: Axes, point: Mean, css: str) -> str:
    title = f"{NAMES.get(css, css)}, epoch {point.x:g}: {point.mean:.4g}"
    return circle(*axes.at(point.x, point.mean), 2.6, f"{css} dot", title)


def legend(variants: Iterable[str], top: float = 12, left: float = LEFT) -> str:
    """Names in a row, each behind its colour."""
    parts, x = [], left
    for variant in variants:
        parts += [rectangle(x, top - 7, 14, 4, f"{variant} key"), text(x + 19, top, NAMES[variant])]
        x += 34 + 7.2 * len(NAMES[variant])
    return "".join(parts)


def factor_strip(facts: Facts, x: tuple[float, float], top: float) -> str:
    """f in a low rectangle with the epochs below it."""
    axes = Axes(LEFT, top, WIDTH - LEFT - RIGHT, 40, x, (0, 1))
    inside = [(epoch, f) for epoch, f in facts.factor if x[0] <= epoch <= x[1]]
    area = axes.band([(epoch, 0, f) for epoch, f in inside], "f") + axes.line(inside, "f")
    return axes.horizontal(count=1) + area + axes.vertical(name="epoch") + text(LEFT + 6, top + 12, "f", "name")


def removal_figure(histories: Mapping[str, BySeed], facts: Facts) -> Figure | None:
    """Accuracy around the step at which f becomes 0: in training by the line, in tests by dots."""
    end, zero = facts.total_steps / facts.epoch_steps, facts.zero_step / facts.epoch_steps
    reach = max(zero, end / 8)
    window = (max(0.0, zero - reach), min(end, zero + 2 * reach))
    inside = lambda points: [point for point in points if window[0] <= point.x <= window[1]]
    found = {
        kind: {
            variant: inside(over_seeds(seeds, kind, "accuracy", facts.epoch_steps, 100))
            for variant, seeds in histories.items()
            if variant in ("plain", "expanded")
        }
        for kind in ("train", "test")
    }
    values = [point.mean for curves in found.values() for points in curves.values() for point in points]
    if "expanded" not in found["test"] or not values:
        return None
    axes = Axes(LEFT, TOP, WIDTH - LEFT - RIGHT, 190, window, span(values))
    parts = [legend(found["test"]), axes.horizontal(), axes.vertical(labels=False)]
    here = axes.at(zero, 0)[0]
    parts += [segment(here, TOP, here, TOP + 190, "mark"), text(here + 5, TOP + 11, "f = 0", "name")]
    parts += [axes.line(_means(thinned(points)), f"{variant} thin") for variant, points in found["train"].items()]
    parts += [_dot(axes, point, variant) for variant, points in found["test"].items() for point in points]
    svg = picture(WIDTH, 316, [*parts, factor_strip(facts, window, 232)], "accuracy around the end of the branch")
    caption = (
        "Training accuracy (lines, of the network as it is at each step) and test accuracy (dots). Means of seeds."
    )
    return Figure("removal", "The moment f reaches 0: accuracy, %", svg, caption)


def branch_figure(seeds: BySeed, facts: Facts) -> Figure | None:
    """What the branch carries of each layer's output, at the evaluations with f > 0."""
    names = [layer.name for layer in facts.layers]
    curves = {name: over_seeds(seeds, "branch", name, facts.epoch_steps, 100) for name in names}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    end, last = facts.zero_step / facts.epoch_steps, max(1, len(curves) - 1)
    axes = Axes(LEFT, TOP, WIDTH - LEFT - RIGHT, 190, (0, end), (0, 100))
    parts = [axes.horizontal(), axes.vertical(labels=False), _layer_names(list(curves))]
    for place, (name, points) in enumerate(curves.items()):
        style = f"color:{layer_colour(place / last)}"
        parts.append(axes.line([*_means(points), (end, 0.0)], "", style))
        parts += [f'<g style="{style}">{_dot(axes, point, name)}</g>' for point in points]
    svg = picture(WIDTH, 316, [*parts, factor_strip(facts, (0, end), 232)], "share of the branch by layer and epoch")
    caption = "mean|f a| / (mean|low| + mean|f a|) on one batch of test images, at each evaluation; then 0."
    return Figure("branch", "Share of a layer's output that the branch carries, %", svg, caption)


def _layer_names(names: list[str]) -> str:
    """In their colours, left to right; the first and the last alone where there is no room for all."""
    fits = sum(12 + 7 * len(name) for name in names) < WIDTH - LEFT
    shown = names if fits else [names[0], "to", names[-1]]
    parts, x = [], float(LEFT)
    for name in shown:
        place = names.index(name) / max(1, len(names) - 1) if name in names else None
        colour = "" if place is None else f"fill:{layer_colour(place)}"
        parts.append(text(x, 14, name, style=colour))
        x += 12 + 7 * len(name)
    return "".join(parts)


def layer_colour(place: float) -> str:
    """From the first layer (0) to the last (1); readable on white and on black."""
    return f"hsl({200 + 150 * place:.0f} 65% 52%)"
