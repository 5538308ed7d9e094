"""What --help says, and that it needs nothing of what the command needs."""

import ast
import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plq.cli.program import COMMANDS
from plq.config.reference import help_text, sections
from plq.config.schema import Config
from plq.data.crops import CROPS
from plq.exporters.formats import EXPORTS
from plq.layers.describe import ROLES
from plq.layers.expanded import MERGES
from plq.layers.factory import DTYPES
from plq.models.registry import NETWORKS
from plq.models.resnet import BLOCKS, SHORTCUTS
from plq.quant.registry import ACTIVATIONS, WEIGHTS
from plq.train.factor import ORDERS, SHAPES
from plq.train.optimizer import DECAYS, OPTIMIZERS, SCHEDULES

HEAVY = {"jax", "flax", "numpy", "optax", "orbax", "tensorflow_datasets", "ml_collections", "absl", "PIL"}
PROBE = """
import atexit, runpy, sys
atexit.register(lambda: print("heavy:", sorted(set({heavy}) & set(sys.modules)), file=sys.stderr))
sys.argv = {argv}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("plq", ["--help"]), ("plq", []), ("plq", ["--version"]), ("plq.main", ["--help"]), ("plq", ["train"]),
        *(("plq", [name, "--help"]) for name in COMMANDS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)  # fmt: skip
def test_help_imports_nothing_heavy(module, arguments):
    program = PROBE.format(heavy=sorted(HEAVY), argv=["plq", *arguments], module=module)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "heavy: []\n", done.stderr
    assert "plq" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_explains_each_argument(name):
    parser = importlib.import_module(f"plq.cli.{name}").parser()
    text = parser.format_help()
    assert parser.prog == f"plq {name}" and parser.description in text
    assert all(option in text for option in parser.options())
    assert [action.dest for action in parser._actions if not action.help] == []


def test_the_formats_of_an_export_are_those_there_are():
    format_ = next(action for action in importlib.import_module("plq.cli.export").parser()._actions if action.choices)
    assert format_.choices == list(EXPORTS)


def test_the_reference_is_the_config():
    """Name by name, with type and default, though it is read off the text."""
    assert list(sections()) == [section.name for section in dataclasses.fields(Config)]
    for section in dataclasses.fields(Config):
        fields = dataclasses.fields(section.default)
        found = sections()[section.name].fields
        assert list(found) == [field.name for field in fields]
        for field in fields:
            assert ast.literal_eval(found[field.name].default) == getattr(section.default, field.name)
            kind = field.type.__name__ if field.type in (str, int, float, bool, dict) else str(field.type)
            assert found[field.name].kind == kind


@pytest.mark.parametrize("name", sections())
def test_every_field_has_a_meaning(name):
    section = sections()[name]
    assert section.about and all(field.meaning for field in section.fields.values())
    for field, facts in section.fields.items():
        entry = f"  --config.{name}.{field}={facts.default}\n      {facts.kind}; {facts.meaning}\n"
        assert entry in help_text() + "\n"


LISTED = {
    "data.crop": CROPS, "model.shortcut": SHORTCUTS, "model.block": BLOCKS, "quant.weights": WEIGHTS,
    "quant.activations": ACTIVATIONS, "quant.dtype": DTYPES, "expansion.merge": MERGES, "factor.name": SHAPES,
    "factor.order": ORDERS, "optimizer.name": OPTIMIZERS, "optimizer.schedule": SCHEDULES, "optimizer.decay": DECAYS,
    "quant.granularity": [granularity for quantizer in WEIGHTS.values() for granularity in quantizer.granularities],
}  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_a_meaning_names_all_that_a_field_allows(name):
    section, field = name.split(".")
    meaning = sections()[section].fields[field].meaning
    assert [value for value in LISTED[name] if value not in meaning] == []


def test_networks_and_roles_are_all_named():
    networks = sections()["model"].fields["name"].meaning
    assert [name for name in NETWORKS if name not in networks and name.removeprefix("resnet") not in networks] == []
    roles = sections()["optimizer"].fields["decay_roles"]
    assert [role for role in ROLES if role not in roles.default + roles.meaning] == []
