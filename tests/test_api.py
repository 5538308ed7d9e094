"""The public names of plq: there, typed, imported on first use, and together a way from a network to a file."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from frozen import small
from networks import architecture

import plq
from plq.runtime.frozen import from_frozen

ROOT = Path(__file__).parents[1]


def test_each_public_name_is_there():
    for name in plq.__all__:
        assert getattr(plq, name).__doc__, name
    assert set(plq.__all__) <= set(dir(plq)) and (Path(plq.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = plq.lod


def test_a_name_imports_no_more_than_it_needs():
    program = "import sys, plq; plq.UserError; print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == "[]\n"


@pytest.fixture(scope="module")
def network():
    """A plain network, its variables as initialized, and the shape of its images."""
    plain = architecture("dorefa", 2).plain()
    return plain, jax.jit(plain.init)(jax.random.key(0, impl="rbg"), jnp.zeros((1, 40, 40, 1))), (40, 40, 1)


def test_from_a_network_to_a_file_and_back(network, tmp_path):
    plain, variables, shape = network
    frozen = plq.freeze(plain, variables, image_shape=shape, mean=(0.0,), std=(256.0,))
    frozen.save(tmp_path / "m.plq")
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    served = plq.load(str(tmp_path / "m.plq"))
    assert np.array_equal(served(images), frozen(images)) and served.class_names == tuple(map(str, range(10)))
    expected = plain.apply(variables, images.astype(np.float32) / 256.0)
    np.testing.assert_allclose(served(images), expected, rtol=1e-4, atol=1e-4)
    lines = plq.export(frozen, tmp_path / "m.shlo", format="stablehlo", images=images)
    assert (tmp_path / "m.shlo").exists() and "StableHLO" in lines[0]
    plq.export(frozen, tmp_path / "c", format="c", images=images, name="digits")
    assert {path.name for path in (tmp_path / "c").iterdir()} >= {"digits.c", "digits.h", "Makefile"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "digits.c").write_text("int main(void) { return 0; }")
    with pytest.raises(plq.UserError, match="digits.c: is there and was not written by plq"):
        plq.export(frozen, tmp_path / "other", format="c", name="digits")


def test_what_cannot_be_frozen_loaded_or_exported_is_one_line(network, tmp_path):
    plain, variables, shape = network
    with pytest.raises(plq.UserError, match="found a network alone"):
        plq.freeze(plain, variables)
    with pytest.raises(plq.UserError, match="not stripped, 1 ancillary leaves: ancillary/a"):
        plq.freeze(plain, {**variables, "ancillary": {"a": jnp.zeros(1)}}, image_shape=shape)
    with pytest.raises(plq.UserError, match="found a folder and variables"):
        plq.freeze(tmp_path, variables)
    with pytest.raises(plq.UserError, match="gone.plq: does not exist"):
        plq.load(tmp_path / "gone.plq")
    with pytest.raises(plq.UserError, match="engine='jaxx': unknown; did you mean jax"):
        plq.load(tmp_path / "gone.plq", engine="jaxx")
    with pytest.raises(plq.UserError, match="format='onxn': unknown; did you mean onnx"):
        plq.export(tmp_path / "gone.plq", tmp_path / "o", format="onxn")


NO_PATHS = [True, 2.0, None, ["a"], b"a", {}, "", "a\0b", Path("a\0b")]


@pytest.mark.parametrize("value", NO_PATHS, ids=repr)
def test_what_is_no_path_is_refused(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frozen = from_frozen(small())
    for call in (
        lambda: plq.load(value),
        lambda: plq.load(value, engine="native"),
        lambda: plq.freeze(value),
        lambda: plq.export(value, "out", format="onnx"),
        lambda: plq.export(frozen, value, format="onnx"),
    ):
        with pytest.raises(plq.UserError) as found:
            call()
        assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("field", "values"), [
    ("variables", [None, True, "3", [2], ("a",), np.zeros(3), {}, {"params": {}}]),
    ("image_shape", [True, 40, "40", (40, 40), (40, 40, 0), (40.0, 40, 1), (40, 40, True), np.zeros((40, 40, 1))]),
    ("image_shape", [(40, 40, 3), (2, 2, 1)]),
    ("mean", [True, 0.0, "0", None, ("0",), (True,), (float("nan"),), (1, 2), (), np.zeros((1, 1)), np.float32(2)]),
    ("std", [(0.0,), (-1,), (float("inf"),), [1, 2], "1"]),
    ("class_names", ["0123456789", True, range(10), ["a"] * 9, [0] * 10, np.arange(10)]),
])  # fmt: skip
def test_what_freeze_is_given_is_checked(field, values, network):
    plain, variables, shape = network
    for value in values:
        given = {"variables": variables, "image_shape": shape, field: value}
        with pytest.raises(plq.UserError, match=field) as found:
            plq.freeze(plain, **given)
        assert "\n" not in str(found.value)


def test_arrays_are_sequences_too(network):
    plain, variables, shape = network
    names = np.array(list("abcdefghij"))
    found = plq.freeze(
        plain, FrozenDict(variables), image_shape=np.array(shape), mean=np.zeros(1), std=[256], class_names=names
    )
    assert found.class_names == tuple("abcdefghij") and found.image_shape == shape


@pytest.mark.parametrize(("fields", "message"), [
    ({"format": ["onnx"]}, "format="), ({"format": np.zeros(3)}, "format="), ({"format": None}, "format=None"),
    ({"format": "c", "name": 3}, "name 3"), ({"format": "c", "name": "a b"}, "name 'a b'"),
    ({"format": "onnx", "name": "a"}, "name='a': has no effect"),
    ({"format": "onnx", "images": 3}, "images: found int"), ({"format": "onnx", "images": "a"}, "images: found <U1"),
    ({"format": "onnx", "images": np.zeros((2, 40, 40, 1))}, "images: found float64"),
    ({"format": "onnx", "images": np.zeros((0, 40, 40, 1), np.uint8)}, "images: found none"),
])  # fmt: skip
def test_what_export_is_given_is_checked(fields, message, tmp_path):
    with pytest.raises(plq.UserError, match=message):
        plq.export(from_frozen(small()), tmp_path / "out", **fields)
    assert not list(tmp_path.iterdir())


def test_an_export_is_compared_on_images_of_any_size(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 20, 1), np.uint8)
    assert "3 images" in plq.export(from_frozen(small()), tmp_path / "m", format="stablehlo", images=images)[-1]


@pytest.mark.parametrize("threads", [True, 1.0, None, "2", -1, 10**9], ids=repr)
def test_a_number_of_threads_is_an_integer(threads, tmp_path):
    from_frozen(small()).save(tmp_path / "m.plq")
    for engine in ("native", "jax"):
        with pytest.raises(plq.UserError, match="threads"):
            plq.load(tmp_path / "m.plq", engine=engine, threads=threads)


@pytest.mark.parametrize("value", [True, "a", None, [2]], ids=repr)
def test_calibration_takes_a_network_and_variables(value, network):
    plain, variables, _ = network
    with pytest.raises(plq.UserError, match="network="):
        plq.calibrate(value, variables, jnp.zeros((1, 40, 40, 1)))
    with pytest.raises(plq.UserError, match="variables="):
        plq.calibrate(plain, value, jnp.zeros((1, 40, 40, 1)))
