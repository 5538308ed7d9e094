"""The order of the rooms, the registry's promise, and the config: every field does something."""

import ast
from pathlib import Path

import pytest

import plq
from plq.config.load import build_config, default, fields_of
from plq.config.schema import APPLIES, Config
from plq.errors import UserError

ROOT = Path(plq.__file__).parent
ROOMS = [
    "errors", "checks", "modes", "storage", "data", "quant", "layers", "models", "distributed", "train", "checkpoint",
    "runtime", "report", "config", "trainer", "exporters", "serving", "compare", "cli", "main", "__main__",
]  # fmt: skip


def room(path: str) -> int:
    return ROOMS.index(path.split(".")[1])


def imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "plq":
            found += [f"plq.{name.name}" for name in node.names if name.name != "__version__"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plq."):
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.startswith("plq")]
    return found


FILES = [file for file in sorted(ROOT.rglob("*.py")) if file != ROOT / "__init__.py"]


def module(file: Path) -> str:
    return ".".join(["plq", *file.relative_to(ROOT).with_suffix("").parts])


@pytest.mark.parametrize("file", FILES, ids=module)
def test_a_file_imports_only_from_rooms_before_its_own(file):
    later = [name for name in imports(file) if room(name) > room(module(file))]
    assert not later


@pytest.mark.parametrize(("folder", "forbidden"), [
    ("quant", "flax"), ("checkpoint", "flax"), ("checkpoint/prune.py", "flax"), ("report", "jax"),
    ("checkpoint/model_file.py", "orbax"), ("data", "flax"), ("layers/operations.py", "flax"),
    ("storage", "jax"), ("storage", "orbax"),
])  # fmt: skip
def test_what_a_room_does_not_know(folder, forbidden):
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).glob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == forbidden], file


def test_no_pickle_anywhere():
    for file in FILES:
        assert "import pickle" not in file.read_text() and "allow_pickle=True" not in file.read_text()


def test_a_quantizer_is_one_file_and_one_line(monkeypatch):
    """A new quantizer, registered, trains through the whole network."""
    import dataclasses
    from typing import ClassVar

    import jax
    import jax.numpy as jnp
    from networks import architecture

    from plq.quant.base import WeightQuantizer
    from plq.quant.quantized import quantized
    from plq.quant.registry import WEIGHTS

    @dataclasses.dataclass(frozen=True)
    class Fixed(WeightQuantizer):
        legal_bits: ClassVar[tuple[int, ...]] = (3,)

        def statistics(self, kernel):
            return ()

        def quantize(self, kernel, scales=None, statistics=None):
            return quantized(jnp.clip(jnp.round(kernel * 8 + 4), 0, 7), 1 / 8, -4.0)

        def surrogate(self, kernel, scales, statistics):
            return jnp.clip(kernel, -0.5, 0.4)

    monkeypatch.setitem(WEIGHTS, "fixed", Fixed)
    network = architecture("fixed", 3).plain()
    x = jnp.zeros((1, 40, 40, 1))
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.eval_shape(network.apply, shapes, x).shape == (1, 10)


OTHER = {str: "?", int: -7, bool: None, float: -7.0, tuple: (-7.0,), dict: {"?": {1}}}
FREE = {
    "data.name",
    "data.train_split",
    "data.test_split",
    "data.data_dir",
    "data.labels",
    "data.cache_dir",
    "model.init_from",
}  # checked against the disk


@pytest.mark.parametrize("name", [name for name, value in fields_of(Config().to_json())
                                  if not isinstance(value, bool) and name not in FREE])  # fmt: skip
def test_every_field_refuses_nonsense_by_name(name):
    section, field = name.split(".")
    given = default().to_dict()
    given[section][field] = OTHER[type(given[section][field])]
    if name in ("data.mean",):
        given[section][field] = ()
    if name in ("optimizer.boundaries", "optimizer.multipliers"):
        given["optimizer"]["schedule"] = "step"
        given["optimizer"][field] = (0.5, 0.4)
    if name in ("quant.granularity", "quant.eta"):
        given["quant"]["weights"] = "syq"
    with pytest.raises(UserError, match=name.replace("multipliers", "(boundaries|multipliers)")) as caught:
        build_config(given)
    assert "\n" not in str(caught.value)


USED_ELSEWHERE = {
    "data.pad": 2, "data.threads": 3, "data.corrupt_share": 0.5, "data.labels": "labels.csv", "data.holdout": 0.3,
    "model.options": {"channels": 3}, "quant.rules": ({"pattern": "*"},),
    "quant.granularity": "row", "quant.eta": 0.3, "factor.rate": 0.3, "factor.cutoff": 0.1, "factor.power": 3.0,
    "factor.value": 0.5, "factor.order": "front", "optimizer.beta2": 0.9, "optimizer.epsilon": 1e-3,
    "optimizer.nesterov": True, "optimizer.boundaries": (0.3,), "optimizer.multipliers": (0.1,),
}  # fmt: skip


@pytest.mark.parametrize("name", APPLIES)
def test_a_value_that_would_be_ignored_is_refused(name):
    section, field = name.split(".")
    given = default().to_dict()
    if section == "optimizer":
        given["optimizer"].update(name="sgd", momentum=0.0)
    if name == "data.pad":
        given["data"].update(crop="resized", image_size=64)
    if name == "factor.order":
        given["factor"]["name"] = "constant"
    given[section][field] = USED_ELSEWHERE[name]
    with pytest.raises(UserError, match=f"{name}=.*has no effect"):
        build_config(given)


@pytest.mark.parametrize("name", [name for name, _ in fields_of(Config().to_json())])
def test_every_field_refuses_another_type(name):
    section, field = name.split(".")
    given = default().to_dict()
    given[section][field] = object()
    with pytest.raises(UserError, match=name):
        build_config(given)


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match="data.batchsize: unknown field; did you mean batch_size"):
        build_config({"data": {"batchsize": 3}})
    with pytest.raises(UserError, match="unknown section modle; did you mean model"):
        build_config({"modle": {}})
