"""The same bits whatever JAX's mode of numbers: training, frozen file, what it gives, and an exported program."""

import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from plq.layers.convert import Rule, convert
from plq.layers.scales import calibrate

ROOT = Path(__file__).parents[1]
MODES = {
    "64_bits": {"JAX_ENABLE_X64": "1"},
    "strict": {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    "nans": {"JAX_DEBUG_NANS": "1"},
}
PROGRAM = """
import hashlib, sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from runs import tiny, trained
import plq
from plq.runtime import stripped_model
from plq.exporters.stablehlo import serialized
from plq.runtime.freezing import freeze_model
from plq.runtime.file_format import encode
from plq.runtime.frozen import from_frozen

def digest(*trees):
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()

experiment = tiny(data__pad=2, data__flip=True, data__brightness=20.0, data__contrast=(0.8, 1.2),
                  optimizer__schedule="cosine", optimizer__warmup=0.2, optimizer__clip_norm=1.0,
                  train__label_smoothing=0.1, quant__gradient_bits=6)
state = trained(experiment, 3)
images = experiment.test_batch()
print("state", digest(state))
print("schedules", [(float(experiment.learning_rate(step)), float(experiment.task.factor(step))) for step in (1, 9)])
kept = {name: state.variables[name] for name in ("params", "batch_stats")}
model = stripped_model.from_variables(jax.device_get(kept), experiment.description())
print("served", digest(model(np.asarray(images))))
frozen = from_frozen(freeze_model(model))
print("frozen", hashlib.sha256(encode(frozen.frozen)).hexdigest())
print("logits", digest(frozen(np.asarray(images))))
print("exported", hashlib.sha256(serialized(frozen.runner)).hexdigest())
"""


def results(mode: dict[str, str]) -> list[str]:
    given = {name: value for name, value in os.environ.items() if name not in {k for m in MODES.values() for k in m}}
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "tests")]
    done = subprocess.run(command, env={**given, **mode}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def by_default() -> list[str]:
    return results({})


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_bits_of_the_default_one(mode, by_default):
    assert results(MODES[mode]) == by_default
    assert len(by_default) == 6


def test_a_convolution_of_64_bit_numbers_has_scales_of_32_bits():
    kernel = np.ones((3, 3, 2, 4))
    with jax.enable_x64(True):
        network = convert(nn.Conv(4, (3, 3), name="conv"), [Rule("*", 2, 2, "syq", "lsq")])
        variables = calibrate(network, network.init(jax.random.key(0), kernel[None, ..., 0]), kernel[None, ..., 0],
                              kernels=True)  # fmt: skip
        found = network.apply(variables, kernel[None, ..., 0])
    assert found.dtype == np.float64 and np.isfinite(found).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
