"""Histories to findings, tables and the report, from records written down here: nothing is trained."""

import dataclasses
import html.parser
import io
import re
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import tiny_config

from plq.compare.aggregate import aggregate, over_points
from plq.compare.comparison import Comparison
from plq.compare.history import History, timing
from plq.compare.plan import make_plan, parse_axis
from plq.compare.preflight import Facts
from plq.compare.report.curves import Mean, over_seeds, thinned
from plq.compare.report.page import verdict, write_report
from plq.compare.report.published import SVHN, published
from plq.compare.report.sections import learned
from plq.compare.report.svg import Axes, ticks
from plq.compare.runs import Training
from plq.compare.table import markdown
from plq.config.load import build_config
from plq.trainer.describe import Row

EPOCH, TOTAL, ZERO = 10, 40, 15
SIZES = (100, 100, 800, 400, 50, 6_400, 12_800)
LAYERS = tuple(Row(name, "conv 3x3", 1, 2, 2, (8, 8, 4), *SIZES) for name in ("conv1", "conv2"))


def history(accuracies, factors=(0.0,) * 4, branch=()):
    """Evaluations at the ends of four epochs."""
    steps = range(EPOCH, TOTAL + 1, EPOCH)
    test = [
        {"step": step, "kind": "test", "loss": 1 - accuracy, "accuracy": accuracy, "factor": f}
        for step, accuracy, f in zip(steps, accuracies, factors, strict=True)
    ]
    train = [{"step": s, "kind": "train", "loss": 2 / s, "accuracy": s / 50, "factor": 0.0} for s in range(5, 41, 5)]
    shares = [{"step": EPOCH, "kind": "branch", **dict.fromkeys(branch, 0.25)}] if branch else []
    clock = [{"step": s, "seconds": s / 10} for s in range(5, 41, 5)]
    return History(tuple(train), tuple(test), tuple(shares), tuple(clock))


def expanded(accuracies):
    return history(accuracies, (0.5, 0.0, 0.0, 0.0), ("conv1", "conv2"))


HISTORIES = {
    "plain": {0: history([0.2, 0.4, 0.5, 0.6]), 1: history([0.2, 0.5, 0.55, 0.5])},
    "expanded": {0: expanded([0.62, 0.5, 0.61, 0.7]), 1: expanded([0.4, 0.3, 0.35, 0.54])},
}
FACTS = Facts(EPOCH, TOTAL, ZERO, tuple((e / 10, max(0.0, 1 - e / 15)) for e in range(41)), LAYERS, "1 x cpu")


def test_findings_are_those_of_the_records():
    found = aggregate(HISTORIES, {"plain": FACTS, "expanded": FACTS})
    assert found["final"]["plain"]["by_seed"] == {0: 60.0, 1: 50.0}
    assert found["difference"]["expanded"]["differences"] == pytest.approx((10.0, 4.0))
    assert found["convergence"]["by_seed"] == {
        0: {"plain": 4, "branch": 1, "alone": 3},  # 0.62 at epoch 1, but with the branch
        1: {"plain": 2, "branch": 4, "alone": 4},
    }
    assert found["convergence"]["median"] == {"plain": 4, "branch": 4, "alone": 4}
    assert found["removal"][0] == pytest.approx({"before": 62.0, "lowest": 50.0, "recovered": 2.5})
    assert found["removal"][1] == pytest.approx({"before": 40.0, "lowest": 30.0, "recovered": 2.5})


def test_convergence_by_training_accuracy_counts_whole_epochs_with_f_0():
    """Two reports an epoch: plain ends at a mean of 0.6; EXP-Net has that in epoch 1, with f, and in 3, without."""
    plain, exp = (0.1, 0.3, 0.3, 0.4, 0.65, 0.45, 0.5, 0.7), (0.7, 0.7, 0.9, 0.5, 0.6, 0.7, 0.5, 0.4)
    factors = (1.0, 0.6, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0)
    train = lambda accuracies, factors: tuple(
        {"step": 5 * i + 5, "accuracy": accuracy, "factor": f}
        for i, (accuracy, f) in enumerate(zip(accuracies, factors, strict=True))
    )
    pair = {
        "plain": {0: dataclasses.replace(HISTORIES["plain"][0], train=train(plain, (0.0,) * 8))},
        "expanded": {0: dataclasses.replace(HISTORIES["expanded"][0], train=train(exp, factors))},
    }
    facts = {"plain": FACTS, "expanded": FACTS}
    assert aggregate(pair, facts)["training_convergence"]["by_seed"] == {0: {"plain": 4, "alone": 3}}
    pair["expanded"][0] = dataclasses.replace(pair["expanded"][0], train=train((0.5,) * 8, factors))
    found = aggregate(pair, facts)["training_convergence"]
    assert found["median"] == {"plain": 4, "alone": None} and found["never"] == {"plain": 0, "alone": 1}
    assert "plain 4 (4), EXP-Net at f = 0 never (never);" in learned(aggregate(pair, facts))


def test_convergence_by_training_accuracy_needs_an_epoch_with_f_0():
    never = {"plain": HISTORIES["plain"], "expanded": {}}
    for seed, history in HISTORIES["expanded"].items():
        train = tuple({**record, "factor": 0.1} for record in history.train) if seed else ()
        never["expanded"][seed] = dataclasses.replace(history, train=train)
    found = aggregate(never, {"plain": FACTS, "expanded": FACTS})
    assert found["training_convergence"]["by_seed"] == {} and learned(found) == ""
    assert markdown({"": found}, ("plain", "expanded")).endswith("| 4, 4, 4 | - |")


def test_no_seed_that_both_have_is_no_convergence():
    apart = {"plain": {0: HISTORIES["plain"][0]}, "expanded": {1: HISTORIES["expanded"][1]}}
    found = aggregate(apart, {"plain": FACTS, "expanded": FACTS})
    assert found["difference"] == {} and found["convergence"]["by_seed"] == {}
    assert markdown({"": found}, ("plain", "expanded")).endswith("| - | - | - |")


def test_findings_with_one_variant_or_none():
    alone = aggregate({"plain": HISTORIES["plain"], "expanded": {}}, {"plain": FACTS, "expanded": FACTS})
    assert alone["difference"] == {} and alone["convergence"] is None and alone["removal"] == {}
    assert aggregate({"plain": {}}, {"plain": FACTS})["final"] == {}


def test_only_seeds_of_both_are_paired():
    third = {"plain": HISTORIES["plain"], "expanded": {1: HISTORIES["expanded"][1], 2: HISTORIES["expanded"][0]}}
    pair = aggregate(third, {"plain": FACTS, "expanded": FACTS})["difference"]["expanded"]
    assert pair["seeds"] == [1] and pair["n"] == 1 and pair["low"] is None


def test_the_mean_over_points_is_taken_seed_by_seed():
    """Seeds 1 and 2 are at both points: (4 + 0) / 2 and (1 + 5) / 2, so 2.5 -+ 12.706 * sqrt(0.5) / sqrt(2)."""
    point = lambda **by_seed: {"difference": {"expanded": {"seeds": list(by_seed), "differences": [*by_seed.values()]}}}
    points = {"a": point(s0=90.0, s1=4.0, s2=1.0), "b": point(s2=5.0, s1=0.0)}
    found = over_points(points)["expanded"]
    assert found["seeds"] == ["s1", "s2"] and found["differences"] == (2.0, 3.0) and found["n"] == 2
    assert (found["low"], found["high"]) == (pytest.approx(2.5 - 6.353, abs=1e-3), pytest.approx(2.5 + 6.353, abs=1e-3))
    assert over_points({"a": points["a"]}) == {}
    assert over_points({**points, "failed": {"difference": {}}}) == {}


def test_step_times_leave_out_compilation_and_evaluation():
    """1 s a step up to f = 0 at 15, half a second after it; reports every 5 steps, evaluations every 10 take 100 s."""
    seconds, records = 50.0, []  # 50: the first compilation
    for step in range(1, 41):
        seconds += 1.0 if step <= 15 else 0.5
        seconds += {16: 30.0}.get(step, 0.0)  # the second compilation
        if step % 5 == 0:
            records.append({"step": step, "seconds": seconds})
        if step % 10 == 0:
            seconds += 100.0
    found = timing(records, 15, 10)
    assert (found.step_with_branch, found.step_without) == (1.0, 0.5)
    assert found.training == records[-1]["seconds"]
    resumed = [*records[:4], *({**r, "seconds": r["seconds"] - records[3]["seconds"] + 9} for r in records[4:])]
    assert timing(resumed, 15, 10).training == pytest.approx(records[-1]["seconds"] + 9)
    assert timing([], 15, 10) == dataclasses.replace(found, training=None, step_with_branch=None, step_without=None)


def test_curves_over_seeds_and_fewer_points():
    mean = over_seeds(HISTORIES["plain"], "test", "accuracy", EPOCH, 100)
    assert mean[1] == pytest.approx((2.0, 45.0, 45 - 50**0.5, 45 + 50**0.5))
    one = over_seeds({0: HISTORIES["plain"][0]}, "test", "accuracy", EPOCH)
    assert one[0] == Mean(1.0, 0.2, 0.2, 0.2)
    assert thinned([Mean(x, x, 0, 0) for x in range(10)], 5) == [Mean(x + 0.5, x + 0.5, 0, 0) for x in range(0, 10, 2)]


def test_axes():
    axes = Axes(10, 20, 100, 50, (0, 4), (0, 1))
    assert axes.at(0, 0) == (10, 70) and axes.at(4, 1) == (110, 20)
    assert ticks(0.3, 1.1) == [0.4, 0.6, 0.8, 1.0] and ticks(5, 5) == [5]


def test_published_points_are_those_of_the_cell():
    config = {"data__name": "svhn_cropped", "quant__weights": "syq", "quant__weight_bits": 2, "model__width": 0.25}
    assert published(build_config(tiny_config(**config, quant__activation_bits=1))) == (92.83, 93.88)
    assert published(build_config(tiny_config(**config, quant__activation_bits=4))) is None
    assert published(build_config(tiny_config(**{**config, "data__name": "digits"}))) is None
    assert published(build_config(tiny_config(**{**config, "model__width": 0.3}))) is None
    assert len(SVHN) == 6 and all(plain < exp for row in SVHN.values() for plain, exp in row)


def comparison(directory, *axes, failed=(), **fields):
    """Of histories as above at every point."""
    plan = make_plan(
        build_config(tiny_config(**fields)), [parse_axis(axis) for axis in axes], ("plain", "expanded"), 2, True
    )
    facts = {(label, variant): FACTS for label in plan.points for variant in plan.variants}
    points = {label: aggregate(HISTORIES, {"plain": FACTS, "expanded": FACTS}) for label in plan.points}
    trainings = {(c.point, c.variant, c.seed): Training(c, ("python", "<x>"), directory) for c in plan.cells}
    histories = dict.fromkeys(plan.points, HISTORIES)
    config = "configs/<a>_with_a_long_name_without_any_space.py"
    return Comparison(config, plan, points, histories, facts, trainings, dict(failed))


PROBE = {
    "batches": 3, "accuracy": 0.6, "reestimated": 0.7, "weights": {"conv1": [0.4, 0.6]},
    "activations": {"conv1": [0.1, 0.2, 0.3, 0.4]}, "class_names": ["cat & dog", "<b>"], "confusion": [[5, 1], [2, 4]],
    "errors": [{"image": "data:image/png;base64,iVBORw0KGgo=", "label": 0, "taken_for": 1, "certain": 0.9}],
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    axes = ("quant.weights=dorefa,xnor", "quant.weight_bits=1,2")
    failed = {"cells/x": "step 3: the loss <is> not finite"}
    found = comparison(directory, *axes, failed=failed, data__name="svhn_cropped", model__width=0.125)
    probes = {label: {variant: {0: PROBE, 1: PROBE} for variant in ("plain", "expanded")} for label in found.points}
    return write_report(found, probes, directory, "plq compare --config <a>")


class Reader(html.parser.HTMLParser):
    """Every tag that is opened is closed, in order; keeps what refers to something, and all words."""

    EMPTY = ("meta", "img", "line", "rect", "polyline", "polygon", "circle")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.words = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    assert not reader.open
    return reader


def test_the_page_stands_alone(page):
    reader = read(page)
    assert reader.links and all(link.startswith("data:image/png") for link in reader.links)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    style = page.read_text().split("<style>")[1].split("</style>")[0]
    assert "prefers-color-scheme: dark" in style and "url(" not in style and "@import" not in style
    assert '<meta name="viewport" content="width=device-width' in page.read_text()


def test_the_page_says_what_was_found(page):
    words = read(page).words
    assert "step 3: the loss <is> not finite" in words and "cat & dog" in words
    assert "Left out: weights=xnor weight_bits=2: quant.weight_bits=2: weights xnor allow 1, 32" in words
    for number in ("+7.00 [-31.12, 45.12]", "+10.00", "70.00", "55.00 ± 7.07", "62.00 ± 11.31"):
        assert number in words, number
    assert words.count("mean over all cells") == 3  # in the verdict, the figure and the table
    assert words.count("in detail".capitalize()) == 1 and "plq compare --config <a>" in words
    assert "re-estimated" in words and "DoReFa 1/2" in words


def test_every_figure_is_a_file_of_its_own(page):
    files = {path.name: path for path in (page.parent / "figures").iterdir()}
    point = "weights=dorefa_weight_bits=1_"
    assert {f"{point}{name}.svg" for name in ("accuracy", "loss", "removal", "branch")} <= set(files)
    assert {"difference.svg"} <= set(files)
    for path in files.values():
        xml.dom.minidom.parse(str(path))
        colours = set(re.findall(r"var\((--\w+)\)", path.read_text()))
        assert colours and all(f"{colour}:" in path.read_text() for colour in colours)


def test_published_points_are_drawn_where_they_belong(page, tmp_path):
    assert "published: 84.26" in (page.parent / "figures" / "widths.svg").read_text()
    other = write_report(comparison(tmp_path, "model.width=0.125,0.25"), {}, tmp_path, "")
    assert "published" not in (other.parent / "figures" / "widths.svg").read_text().split("</style>")[1]
    assert read(other).words.count("0.125x") == 1


def test_a_single_point_needs_no_grid(tmp_path):
    found = comparison(tmp_path)
    words = read(write_report(found, {}, tmp_path, "")).words
    assert "No difference shown: EXP-Net ends +7.00 points" in words and "ll cells" not in words
    assert not (tmp_path / "figures" / "widths.svg").exists()
    assert "| as configured | 2 | 55.00 ± 7.07 | 62.00 ± 11.31 | +7.00 [-31.12, 45.12] | 4, 4, 4 |" in markdown(
        found.points, found.variants
    )


def test_nothing_finished_is_a_page_too(tmp_path):
    found = comparison(tmp_path)
    nothing = {"plain": {}, "expanded": {}}
    empty = aggregate(nothing, {"plain": FACTS, "expanded": FACTS})
    found = dataclasses.replace(found, histories={"": nothing}, points={"": empty}, failed={"cells/plain_0": "why"})
    words = read(write_report(found, {"": nothing}, tmp_path, "")).words
    assert "cells/plain_0: why" in words and "Nothing to compare" in words


def test_the_verdict_claims_no_more_than_the_interval():
    values = {"mean": 1.0, "seeds": [0, 1], "differences": [0.5, 1.5]}
    pair = lambda n, low, high: {"difference": {"expanded": {**values, "n": n, "low": low, "high": high}}}
    assert "may be chance" in verdict({"": pair(1, None, None)})
    assert verdict({"": pair(3, 0.5, 1.5)}).startswith("EXP-Net ends 1.00 points above")
    assert verdict({"": pair(3, -0.5, 2.5)}).startswith("No difference shown")
    many = verdict({"a": pair(3, 0.5, 1.5), "b": pair(3, -0.5, 2.5), "c": pair(3, -2.0, -1.0)})
    assert "above the plain network in 1 of 3 cells and below it in 1; in 1 the seeds show no difference" in many
    assert "In the mean over all cells EXP-Net ends +1.00 [-5.35, 7.35] points from it (2 seeds)" in many


def test_a_browser_shows_it_in_light_and_dark_and_on_a_phone(page, browser):
    """The paper is white or black, something is drawn on it, and at 400 pixels nothing sticks out at the side."""
    for scheme, paper in (("light", 255), ("dark", 15)):
        tab = browser.new_context(color_scheme=scheme).new_page()
        tab.goto(page.as_uri())
        pixels = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB"))
        assert pixels[0, 0, 0] == paper and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
        tab.set_viewport_size({"width": 400, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") == 400
