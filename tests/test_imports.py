"""What serving needs installed: jax, numpy and Pillow; nothing of the training framework."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from frozen_models import small_model
from packaging.utils import canonicalize_name

from plq.runtime.file_format import encode

ROOT = Path(__file__).parents[1]
TRAINING = {"flax", "optax", "orbax", "tensorflow_datasets", "grain", "ml_collections", "absl", "safetensors"}

ALONE = """
import importlib.abc, json, sys

hidden = set(json.loads(sys.argv[1]))

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
for name in ("optax", "cv2"):
    try:
        __import__(name)
        sys.exit(f"{name} was not hidden")
    except ModuleNotFoundError:
        pass
"""

SERVE = """
import numpy, plq
model = plq.load(sys.argv[2])
assert model(numpy.zeros((2, 9, 9, 1), "uint8")).shape == (2, 10)
import plq.cli.info
plq.cli.info.main([sys.argv[2]])
import plq.cli.predict
from PIL import Image
image = sys.argv[2] + ".png"
Image.new("L", (9, 9)).save(image)
plq.cli.predict.main(["--model", sys.argv[2], image])
"""

EXAMPLE = """
sys.path.insert(0, sys.argv[3])
import serve, plq
assert serve.application(plq.load(sys.argv[2]), "m", serve.Limits(batch=1))
"""


@pytest.fixture(scope="module")
def cost():
    """benchmarks/import_cost.py."""
    spec = importlib.util.spec_from_file_location("import_cost", ROOT / "benchmarks" / "import_cost.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "model.plq"
    path.write_bytes(encode(small_model().frozen))
    return path


@pytest.mark.parametrize(("more", "program"), [
    ([], SERVE), (["starlette", "uvicorn", "python-multipart"], EXAMPLE),
], ids=["plq.load", "examples/serving"])  # fmt: skip
def test_serving_runs_where_only_jax_numpy_and_pillow_are_installed(cost, model, more, program):
    """All other installed packages are hidden, also those that jax would use if they were there."""
    installed = cost.required([*cost.SERVED, *more])
    hidden = sorted(
        name
        for name, packages in metadata.packages_distributions().items()
        if not installed & set(map(canonicalize_name, packages)) and name != "plq"
    )
    assert set(hidden) > TRAINING and not {"jax", "numpy", "PIL", "scipy"} & set(hidden)
    arguments = [json.dumps(hidden), str(model), str(ROOT / "examples" / "serving")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ALONE + program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_plq_alone_imports_nothing():
    """Not even jax, until something is loaded."""
    program = "import sys, plq; print({'jax', 'numpy', 'PIL'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == "set()\n"
