"""The examples that come along run, shortened."""

import ast
import sys
from pathlib import Path

import pytest

from plq.cli import evaluate, train
from plq.config.selection import select
from plq.errors import UserError

FOLDER = Path(__file__).parents[1] / "examples" / "own_network"


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("network", None)


def test_the_network_knows_nothing_of_plq():
    nodes = list(ast.walk(ast.parse((FOLDER / "network.py").read_text())))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert names and not [name for name in names if name.split(".")[0] == "plq"]


def test_one_command_trains_it_and_one_evaluates_it(here, tmp_path, capsys):
    short = ["--config.train.epochs=0.5", "--config.mesh.data=1", "--config.model.options={'widths': (4,)}"]
    train.main(["--config", "config.py", "--workdir", str(tmp_path), *short])
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert [line for line in lines if "the branch is removed" in line and "bit-equal" in line]
    assert lines[-1].endswith("logits: bit-equal on 360 images")
    with pytest.raises(UserError, match="--network network:SEResNet"):
        evaluate.main(["--model", str(tmp_path / "model")])
    evaluate.main(["--model", str(tmp_path / "model"), "--network", "network:SEResNet"])
    accuracy = lambda line: line.split("accuracy ")[1].split(" %")[0]
    assert accuracy(capsys.readouterr().out) == accuracy(lines[-1])


def test_its_rules_give_each_layer_its_bits(here):
    config = select("config.py", {}).config
    rules = config.architecture(10, (8, 8, 1)).rules
    assert [(rule.pattern, rule.weight_bits, rule.activation_bits, rule.expand) for rule in rules] == [
        ("stem", 8, 32, False), ("*/gate/*", 8, 8, False), ("head", 8, 8, False), ("block*", 2, 2, True)]  # fmt: skip
