"""The plan for a pod: the page holds what the script computes, and its counts are the published ones."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "pod_plan.py"


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("pod_plan", SCRIPT)
    module = sys.modules["pod_plan"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_the_script_computes(plan, tmp_path):
    page = (ROOT / "docs" / "pod.md").read_text()
    copy = tmp_path / "pod.md"
    copy.write_text(page.replace("|", "?"))
    plan.write(copy, plan.plan(plan.SLICES, plan.Assumptions()))
    between = lambda text: text.partition(plan.MARKS[0])[2].partition(plan.MARKS[1])[0]
    assert between(copy.read_text()) == between(page)
    assert "Nothing here was run on such hardware" in page


@pytest.mark.parametrize(
    ("name", "parameters", "products", "norms"), [("resnet18", 11.69e6, 1.81e9, 20), ("resnet50", 25.56e6, 4.09e9, 53)]
)
def test_the_counts_are_those_of_the_literature(plan, name, parameters, products, norms):
    net = plan.network(name, False)
    assert net.parameters == pytest.approx(parameters, rel=1e-3) and net.products == pytest.approx(products, rel=5e-3)
    assert net.norms == norms
    assert 1.5 < plan.network(name, True).products / net.products < 2


def test_the_share_of_the_limit_is_that_of_the_published_run(plan):
    seconds = 13.466 * 60 * 8 / (35 * plan.IMAGES)
    [gpus] = [where for where in plan.SLICES if "H100" in where.name]
    given = plan.Assumptions(activation_bytes=2.0)
    limit = plan.step(plan.network("resnet50", False), gpus, 400, given).memory / 400
    assert given.roofline_share == pytest.approx(limit / seconds, abs=0.01)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"memory_bandwidth": 1e15}, "compute"),
        ({}, "memory"),
        ({"allreduce_latency": 1.0}, "all-reduce"),
        ({"cores_per_host": 1}, "host input"),
    ],
)
def test_what_limits_a_step(plan, change, limit):
    where = dataclasses.replace(plan.SLICES[0], **change)
    found = plan.step(plan.network("resnet50", False), where, 64, plan.Assumptions())
    assert found.limit == limit
    assert found.seconds == pytest.approx(max(found.device + found.allreduce, found.host_input))


def test_other_hardware_and_mistakes(plan, tmp_path):
    file = tmp_path / "slices.json"
    file.write_text(json.dumps([dataclasses.asdict(plan.SLICES[1])]))
    assert [where.name for where in plan.read_slices(file)] == ["v5e-64"]
    for arguments, message in (
        (["--slices", str(SCRIPT)], "plq: --slices"),
        (["--epochs", "0"], "plq: --epochs 0.0: allowed above 0"),
    ):
        done = subprocess.run([sys.executable, str(SCRIPT), *arguments], cwd=ROOT, capture_output=True, text=True,
                              env={"PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == 2 and done.stderr.startswith(message) and done.stderr.count("\n") == 1
