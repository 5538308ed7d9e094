"""The collective share of a step: arithmetic of intervals on events that are made up."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def share():
    """benchmarks/collective_share.py."""
    script = ROOT / "benchmarks" / "collective_share.py"
    spec = importlib.util.spec_from_file_location("collective_share", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event(name, begin, end, operation=True):
    return SimpleNamespace(name=name, start_ns=begin, end_ns=end, stats=[("hlo_op", name)] if operation else [])


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], []),
        ([(5, 6), (0, 2)], [(0, 2), (5, 6)]),
        ([(0, 2), (1, 4)], [(0, 4)]),
        ([(0, 9), (1, 2), (3, 4)], [(0, 9)]),
        ([(0, 2), (2, 3)], [(0, 3)]),
    ],
)
def test_united_stretches_have_no_overlap(share, found, wanted):
    assert share.united(found) == wanted
    assert share.length(wanted) == sum(any(a <= t < b for a, b in found) for t in range(10))


def test_what_is_outside_the_steps_does_not_count(share):
    steps = [(10, 20), (30, 40)]
    assert share.within([(0, 12), (15, 35), (39, 50), (20, 30)], steps) == [(10, 12), (15, 20), (30, 35), (39, 40)]
    assert share.within([(0, 10), (40, 50)], steps) == []


def test_operations_are_told_apart_by_name(share):
    found = [event("all-reduce.3", 0, 1), event("fusion", 1, 2), event("all-gather", 2, 3), event("wait", 3, 4, False)]
    assert share.spans(found) == ([(0, 1), (2, 3)], [(1, 2)])


@pytest.mark.parametrize(
    ("operations", "in_flight", "exposed"),
    [
        ([event("fusion", 10, 20)], 0.0, 0.0),
        ([event("fusion", 10, 15), event("all-reduce", 15, 20)], 0.5, 0.5),
        ([event("fusion", 10, 17), event("all-reduce", 15, 20)], 0.5, 0.3),
        ([event("fusion", 10, 20), event("all-reduce", 12, 18)], 0.6, 0.0),
        ([event("all-reduce", 10, 16), event("all-reduce.1", 14, 20), event("fusion", 12, 15)], 1.0, 0.7),
        ([event("all-reduce", 0, 12), event("fusion", 0, 11), event("fusion", 18, 30)], 0.2, 0.1),
        ([event("all-reduce", 12, 18), event("wait", 10, 20, operation=False)], 0.6, 0.6),
    ],
    ids=["none", "after", "half beside", "hidden", "two at once", "across the ends", "what is no operation"],
)
def test_the_shares_of_a_step(share, operations, in_flight, exposed):
    found = share.shares([event(share.STEP, 10, 20, operation=False), *operations])
    assert found == pytest.approx({"in flight": in_flight, "exposed": exposed})


def test_the_shares_are_those_of_all_steps_together(share):
    steps = [event(share.STEP, 0, 10, operation=False), event(share.STEP, 20, 50, operation=False)]
    found = share.shares([*steps, event("reduce-scatter", 5, 30), event("fusion", 25, 30)])
    assert found == pytest.approx({"in flight": 15 / 40, "exposed": 10 / 40})
