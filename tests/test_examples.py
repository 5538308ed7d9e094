"""The examples that come along run, shortened."""

import ast
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from plq.checkpoint.model_file import read_model
from plq.layers.convert import Rule, convert, unused_rules
from plq.layers.variables import flatten

FOLDER = Path(__file__).parents[1] / "examples" / "own_network"


@pytest.fixture(scope="module")
def example():
    """What the script defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield runpy.run_path(str(FOLDER / "train.py"))
    sys.modules.pop("network", None)


def test_the_network_knows_nothing_of_plq_and_every_rule_is_used(example):
    nodes = ast.walk(ast.parse((FOLDER / "network.py").read_text()))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith("plq")]
    for rules in (example["RULES"], example["LEARNED"]):
        assert unused_rules(example["Digits"](), rules, (8, 8, 1)) == []


def test_it_trains_prunes_saves_and_serves_the_same_bits(example, tmp_path, capsys):
    example["main"](["--learned", "--epochs", "2", "--out", str(tmp_path / "model")])
    *_, left, served = capsys.readouterr().out.splitlines()
    assert left == "step 22: f is 0, the branch leaves; logits bit-equal"
    assert served.endswith("%; logits bit-equal")
    assert float(served.split("test accuracy ")[1].split(" %")[0]) > 40  # chance is 10
    variables, description = read_model(tmp_path / "model")
    network = convert(example["Digits"](), [Rule(**fields) for fields in description["rules"]])
    wanted = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    shapes = lambda tree: {path: leaf.shape for path, leaf in flatten(tree).items()}
    assert shapes(variables) == shapes(wanted)
    steps = [leaf for path, leaf in flatten(variables).items() if path.endswith("act/step")]
    assert len(steps) == 7 and len(set(map(float, steps))) == 7  # calibrated and learned, each for itself
