"""The calibration stage: learned scales that fit real digits before the first step, and nothing else changed."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from runs import tiny

from plq.data.augment import normalize
from plq.layers.activation import Activation
from plq.layers.scales import calibrate
from plq.layers.variables import flatten
from plq.train.calibrate import calibrated

FIELDS = {"quant__weights": "lsq", "quant__weight_bits": 2, "quant__activation_bits": 3, "mesh__data": 1}
LEARNED = ("act/alpha", "act/step", "act/offset")


def of_activations(params):
    return {path: float(leaf) for path, leaf in flatten(params).items() if path.endswith(LEARNED)}


@pytest.fixture(scope="module")
def experiments():
    return {name: tiny(**FIELDS, quant__activations=name) for name in ("lsq", "pact", "apot", "lsq_plus")}


@pytest.fixture(scope="module")
def states(experiments):
    return {name: setup.initial_state() for name, setup in experiments.items()}


@pytest.mark.parametrize("name", ["lsq", "pact", "apot", "lsq_plus"])
def test_scales_fit_what_each_layer_gets_from_the_calibrated_ones_before_it(name, experiments, states):
    setup, params = experiments[name], states[name].weights["params"]
    images = setup.batch(0)[0]
    found = of_activations(params)
    assert len(found) == 6 * len(setup.config.quant.activation().scale_names)
    assert found != of_activations(setup.init().weights["params"])
    inputs = {}

    def record(next_function, args, kwargs, context):
        if isinstance(context.module, Activation) and context.method_name == "__call__":
            inputs["/".join(context.module.path)] = args[0]
        return next_function(*args, **kwargs)

    variables = {"params": params, "batch_stats": states[name].statistics["batch_stats"]}
    network, x = setup.task.architecture.plain(), normalize(images, setup.task.mean, setup.task.std)
    rngs = dict(zip(("dropout", "gradient"), jax.random.split(jax.random.key(setup.task.seed)), strict=True))
    with nn.intercept_methods(record):
        network.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
    quantizer = setup.config.quant.activation()
    for layer in [f"conv{i}/act" for i in range(6)]:
        for scale, wanted in jax.jit(quantizer.calibrate_scales)(inputs[layer]).items():
            np.testing.assert_allclose(found[f"{layer}/{scale}"], wanted, rtol=2e-3, atol=1e-3)


def test_nothing_else_changes(experiments, states):
    setup, after = experiments["lsq"], states["lsq"]
    before = setup.pruned(setup.init(), 0)
    jax.tree.map(np.testing.assert_array_equal, before.statistics, after.statistics)
    jax.tree.map(np.testing.assert_array_equal, before.moments, after.moments)
    jax.tree.map(np.testing.assert_array_equal, before.weights["ancillary"], after.weights["ancillary"])
    old, new = flatten(before.weights["params"]), flatten(after.weights["params"])
    assert {path for path in old if not np.array_equal(old[path], new[path])} == set(of_activations(new))


@pytest.mark.parametrize("fields", [{}, {"expansion__merge": "concat"}, {"factor__name": "constant"}])
def test_the_same_each_time_and_with_or_without_a_branch(fields, states):
    again = tiny(**FIELDS, quant__activations="pact", **fields).initial_state()
    assert again.expanded == (fields.get("factor__name") != "constant")
    jax.tree.map(np.testing.assert_array_equal, again.weights["params"], states["pact"].weights["params"])


def test_fixed_quantizers_and_float_activations_have_nothing_to_calibrate():
    setup = tiny(mesh__data=1)
    state = setup.init()
    images = setup.batch(0)[0]
    again = jax.jit(lambda state: calibrated(setup.task, state, images, True))(state)
    jax.tree.map(np.testing.assert_array_equal, again.weights, state.weights)
    float_run = tiny(quant__weight_bits=32, quant__activation_bits=32, quant__activations="lsq", quant__weights="lsq")
    assert not [path for path in flatten(float_run.init().weights["params"]) if path.endswith(LEARNED)]
    assert float_run.learned == []


def test_kernel_scales_are_set_when_asked_for():
    """SYQ's start at 1 in a fresh network, and at the mean magnitude once trained kernels are there."""
    setup = tiny(quant__weights="syq", quant__weight_bits=2, mesh__data=1)
    task, state, images = setup.task, setup.init(), setup.batch(0)[0]
    for kernels in (False, True):
        params = jax.jit(lambda state, k=kernels: calibrated(task, state, images, k))(state).weights["params"]
        kernel, scale = (params["conv3"]["conv"][name] for name in ("kernel", "scale"))
        wanted = np.abs(kernel).mean((2, 3), keepdims=True) if kernels else np.ones((3, 3, 1, 1))
        np.testing.assert_allclose(scale, wanted, rtol=1e-5)


def test_a_network_that_is_applied_as_usual_keeps_its_scales(experiments, states):
    """Calibration is a stage of its own: no mutable "params" or batch statistics set a scale by the way."""
    setup, state = experiments["lsq"], states["lsq"]
    network, variables = setup.task.architecture.plain(), {
        "params": state.weights["params"], "batch_stats": state.statistics["batch_stats"]
    }  # fmt: skip
    x = 9 * np.ones((2, 40, 40, 1), np.float32)
    rngs = {"dropout": jax.random.key(0)}
    _, changed = network.apply(variables, x, train=True, rngs=rngs, mutable=["params", "batch_stats"])
    assert of_activations(changed["params"]) == of_activations(state.weights["params"])
    other = calibrate(network, variables, x, train=True, rngs=rngs)
    assert of_activations(other["params"]) != of_activations(state.weights["params"])
    assert set(other) == {"params", "batch_stats"}
