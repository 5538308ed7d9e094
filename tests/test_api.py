"""The public names of plq: there, typed, imported on first use, and together a way from a network to a file."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import architecture

import plq

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
