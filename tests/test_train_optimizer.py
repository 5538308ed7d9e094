"""Schedules, weight decay by role, clipping, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plq.errors import UserError
from plq.train.optimizer import OptimizerConfig, learning_rate, make_optimizer

ROLES = {"params": {"conv": "conv", "norm": "norm"}, "ancillary": {"anc": "ancillary"}}
WEIGHTS = {"params": {"conv": jnp.full(3, 2.0), "norm": jnp.full(2, 2.0)}, "ancillary": {"anc": jnp.full(4, 2.0)}}
ZERO = {"params": {"conv": jnp.zeros(3), "norm": jnp.zeros(2)}, "ancillary": {"anc": jnp.zeros(4)}}


def update(recipe, gradients=ZERO, steps=1):
    optimizer = make_optimizer(recipe, 100, ROLES)
    weights, state = WEIGHTS, optimizer.init(WEIGHTS)
    for _ in range(steps):
        updates, state = optimizer.update(gradients, state, weights)
        weights = optax.apply_updates(weights, updates)
    return weights


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_decay_touches_the_chosen_roles_only(decay):
    recipe = OptimizerConfig("sgd", 0.1, momentum=0.0, weight_decay=0.5, decay=decay, decay_roles=("conv",))
    after = update(recipe)
    np.testing.assert_allclose(after["params"]["conv"], 2.0 - 0.1 * 0.5 * 2.0, rtol=1e-6)
    np.testing.assert_array_equal(after["params"]["norm"], 2.0)
    np.testing.assert_array_equal(after["ancillary"]["anc"], 2.0)


def test_decoupled_and_l2_decay_differ_under_adam():
    """L2 goes through Adam's scaling, a step of the learning rate; decoupled decay is lr * decay * weight."""
    fields = {"name": "adam", "learning_rate": 0.01, "epsilon": 1e-12, "weight_decay": 0.1, "decay_roles": ("conv",)}
    l2, decoupled = (update(OptimizerConfig(**fields, decay=decay))["params"]["conv"] for decay in ("l2", "decoupled"))
    np.testing.assert_allclose(l2, 2.0 - 0.01, rtol=1e-5)
    np.testing.assert_allclose(decoupled, 2.0 - 0.01 * 0.1 * 2.0, rtol=1e-6)


def test_clipping_bounds_the_global_norm():
    gradients = {"params": {"conv": jnp.full(3, 10.0), "norm": jnp.zeros(2)}, "ancillary": {"anc": jnp.full(4, 10.0)}}
    after = update(OptimizerConfig("sgd", 1.0, momentum=0.0, clip_norm=0.5), gradients)
    moved = np.concatenate([2.0 - after["params"]["conv"], 2.0 - after["ancillary"]["anc"]])
    np.testing.assert_allclose(np.linalg.norm(moved), 0.5, rtol=1e-5)


def test_sgd_momentum_accumulates():
    gradients = {"params": {"conv": jnp.ones(3), "norm": jnp.zeros(2)}, "ancillary": {"anc": jnp.zeros(4)}}
    after = update(OptimizerConfig("sgd", 0.1, momentum=0.5), gradients, steps=2)
    np.testing.assert_allclose(after["params"]["conv"], 2.0 - 0.1 * (1 + 1.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "constant"}, {0: 1.0, 999: 1.0}),
        ({"schedule": "step", "boundaries": (0.5, 0.75), "multipliers": (0.1, 0.1)}, {499: 1.0, 501: 0.1, 751: 0.01}),
        ({"schedule": "staircase", "boundaries": (0.25,), "multipliers": (0.5,)}, {249: 1.0, 250: 0.5, 500: 0.25}),
        ({"schedule": "cosine"}, {0: 1.0, 500: 0.5, 1000: 0.0}),
        ({"schedule": "cosine", "warmup": 0.1}, {0: 0.0, 50: 0.5, 100: 1.0, 550: 0.5, 1000: 0.0}),
        (
            {"schedule": "step", "boundaries": (0.5,), "multipliers": (0.1,), "warmup": 0.1},
            {50: 0.5, 499: 1.0, 501: 0.1},
        ),
    ],
)
def test_learning_rates(fields, expected):
    schedule = learning_rate(OptimizerConfig(learning_rate=1.0, **fields), 1000)
    for step, value in expected.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6), step


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "adamw"},
        {"schedule": "cosin"},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"warmup": 1.0},
        {"decay": "L2"},
        {"decay_roles": ("kernel",)},
        {"weight_decay": -1.0},
        {"schedule": "step", "boundaries": ()},
        {"schedule": "step", "boundaries": (0.5, 0.4), "multipliers": (0.1, 0.1)},
        {"schedule": "step", "boundaries": (0.5,), "multipliers": (0.1, 0.1)},
    ],
)
def test_illegal_recipes_are_named(fields):
    with pytest.raises(UserError, match="optimizer."):
        OptimizerConfig(**fields).check()


@pytest.mark.parametrize("size", [0.0, 1e-30, 0.4, 3.0, np.inf])
def test_a_gradient_is_clipped_as_optax_does_and_none_stays_none(size):
    weights = {"params": {"conv": jnp.asarray([1.0, -2.0, 0.0])}}
    gradients = {"params": {"conv": jnp.float32(size) * jnp.asarray([0.6, -0.8, 0.1])}}
    recipe = OptimizerConfig("sgd", learning_rate=1.0, momentum=0.0, clip_norm=0.5)
    rule, theirs = make_optimizer(recipe, 10, {"params": {"conv": "conv"}}), optax.clip_by_global_norm(0.5)
    wanted = jax.tree.map(jnp.negative, theirs.update(gradients, theirs.init(weights))[0])
    with jax.debug_nans(size == 0):
        found, state = rule.update(gradients, rule.init(weights), weights)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert state[0] == theirs.init(weights)
