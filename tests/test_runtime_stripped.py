"""The stripped model on disk and in use: whole, exact, and refused in one line when it is not."""

import ast
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from networks import architecture, digit_images, logits, used_variables

from plq.checkpoint.model_file import DESCRIPTION, VARIABLES, read_model, write_model
from plq.checkpoint.prune import prune
from plq.errors import UserError
from plq.runtime import stripped_model

ARCHITECTURE = architecture("dorefa", 2)


def description(**other):
    return {
        "architecture": ARCHITECTURE.to_json(),
        "image_shape": [40, 40, 1],
        "mean": [0.0],
        "std": [256.0],
        "class_names": [f"digit {index}" for index in range(10)],
        "fit": "square",
        "training": {"step": 3},
        **other,
    }


@pytest.fixture(scope="module")
def expanded():
    return used_variables(ARCHITECTURE.expanded("concat", 0.0), digit_images(50))


@pytest.fixture
def path(tmp_path, expanded):
    write_model(tmp_path / "model", prune(expanded), description())
    return tmp_path / "model"


def test_from_file_to_logits_bit_for_bit(path, expanded):
    images = digit_images(30)
    model = stripped_model.load(path)
    np.testing.assert_array_equal(model(images), logits(ARCHITECTURE.expanded("concat", 0.0), expanded, images, 30))
    assert model.class_names[3] == "digit 3" and model.training == {"step": 3}


def test_images_of_another_size_are_resized(path):
    from plq.data.digits import load_digits

    model, small = stripped_model.load(path), load_digits()[0][-5:]
    np.testing.assert_array_equal(model(small), model(digit_images(5)))
    for wrong in (small.astype(np.float32), small[..., 0], np.repeat(small, 3, -1)):
        with pytest.raises(UserError, match="images: found .*allowed uint8"):
            model(wrong)


def test_unstripped_variables_are_refused_by_name(tmp_path, expanded):
    with pytest.raises(UserError, match=r"not stripped, \d+ ancillary leaves: ancillary/conv1/ancillary_conv/"):
        stripped_model.from_variables(expanded, description())
    write_model(tmp_path / "model", expanded, description())
    with pytest.raises(UserError, match="not stripped.*plq prune"):
        stripped_model.load(tmp_path / "model")


def test_the_served_network_has_no_code_of_the_branch():
    """The plain kit makes plain units only, and running one touches no ancillary collection."""
    shapes = jax.eval_shape(ARCHITECTURE.plain().init, jax.random.key(0), np.zeros((1, 40, 40, 1), np.float32))
    assert set(shapes) == {"params", "batch_stats"}
    for room in ("quant", "layers/conv.py", "layers/unit.py", "models/svhn.py"):
        for file in sorted(Path(stripped_model.__file__).parent.glob(f"{room}*/**/*.py" if "." not in room else room)):
            imported = {
                name.name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.ImportFrom) and "expanded" in (node.module or "")
                for name in node.names
            }
            assert not imported, file


def test_dtypes_and_nested_names_survive(tmp_path):
    variables = {"params": {"a": {"b": np.full((2, 3), 1.5, np.float16)}, "c": np.arange(4, dtype=np.int32)}}
    variables["params"]["scale"], variables["params"]["turned"] = np.float32(3), np.arange(6.0).reshape(2, 3).T
    write_model(tmp_path / "m", variables, {"x": [1, None]})
    read, found = read_model(tmp_path / "m")
    assert found == {"x": [1, None]}
    jax.tree.map(lambda *pair: np.testing.assert_array_equal(*pair, strict=True), read, variables)  # 0-d stays 0-d


def test_writing_replaces_a_model_and_nothing_else(tmp_path, path):
    write_model(path, {"params": {"w": np.ones(2)}}, {"new": True})
    assert read_model(path)[1] == {"new": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("cat")
    with pytest.raises(UserError, match="is no part of a model of plq; it is left alone"):
        write_model(tmp_path / "photos", {"params": {"w": np.ones(2)}}, {})
    assert (tmp_path / "photos" / "cat.png").read_text() == "cat"


def change(path, **fields):
    header = json.loads((path / DESCRIPTION).read_text())
    (path / DESCRIPTION).write_text(json.dumps({**header, **fields}))


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


DEFECTS = {
    "no description": (lambda path: (path / DESCRIPTION).unlink(), "holds no model.json"),
    "no variables": (lambda path: (path / VARIABLES).unlink(), "variables.safetensors: cannot be read"),
    "broken json": (lambda path: (path / DESCRIPTION).write_text("{"), "not readable JSON"),
    "a list": (lambda path: (path / DESCRIPTION).write_text("[]"), "is not the description of a plq model"),
    "other format": (lambda path: change(path, format="onnx"), "is not the description of a plq model"),
    "later version": (lambda path: change(path, version=99), "model format version 99, this plq reads 1"),
    "no checksum": (lambda path: change(path, sha256=None), "lacks the field sha256 or description"),
    "one bit": (lambda path: flip(path / VARIABLES), "damaged: its checksum"),
    "cut off": (lambda path: os.truncate(path / VARIABLES, 100), "damaged: its checksum"),
    "not a network": (lambda path: change(path, description={}), "description lacks or misstates"),
    "other network": (
        lambda path: change(path, description=description(architecture=architecture(width=0.25).to_json())),
        "does not fit the model; different: batch_stats/conv1/norm/mean float32\\[8\\] in the file, float32\\[16\\]",
    ),
    "unknown network": (
        lambda path: change(path, description=description(architecture={**ARCHITECTURE.to_json(), "name": "vgg"})),
        "model.name=vgg: unknown",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_is_one_clear_line(defect, path):
    damage, message = DEFECTS[defect]
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        stripped_model.load(path)
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_model_say_what_they_are(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / DESCRIPTION).write_text("{}")
    for name, message in (
        ("gone", "does not exist"),
        ("file", "is a file"),
        ("run", "its stripped model is .*run/model"),
    ):
        with pytest.raises(UserError, match=message):
            stripped_model.load(tmp_path / name)
