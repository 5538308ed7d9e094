"""Variants of the branch, and how much of the output it carries."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import architecture, digit_images, logits, used_variables
from runs import tiny, trained

from plq.data.augment import normalize
from plq.layers.describe import expanded_layers
from plq.layers.expanded import gate
from plq.layers.kit import Precision, expanded_kit, plain_kit
from plq.prune import drop_ancillary
from plq.train.branch import branch_shares
from plq.train.factor import Factor
from plq.train.step import closing, taught
from plq.variables import ancillary_leaves, flatten

LAYERS = tuple(f"conv{i}" for i in range(1, 7))


def test_shares_grow_with_the_factor_and_are_0_without():
    """In the first expanded layer neither side depends on f: the odds of the share are proportional to it."""
    experiment = tiny()
    images, state = experiment.test.split.images[:32], experiment.initial_state()

    @jax.jit
    def shares(f):
        class Fixed(Factor):
            def by_layer(self, step):
                return f

        return branch_shares(dataclasses.replace(experiment.task, factor=Fixed("constant", 1)), state, images)

    whole, half, none = (jax.device_get(shares(f)) for f in (1.0, 0.5, 0.0))
    assert tuple(whole) == LAYERS and not any(none.values())
    assert all(0 < whole[layer] < 1 for layer in LAYERS)
    odds = lambda share: share / (1 - share)
    assert odds(whole["conv1"]) == pytest.approx(2 * odds(half["conv1"]), rel=1e-5)


def test_layers_with_a_branch_in_order():
    assert expanded_layers(architecture().expanded("concat", 1.0), (40, 40, 1)) == LAYERS


def test_a_branch_without_batch_norm_leaves_as_one_with():
    network = architecture()
    variables = used_variables(network.expanded("add", 0.0, norm=False), digit_images(100))
    assert not [path for path in ancillary_leaves(variables) if "norm" in path]
    images = digit_images(50)
    expanded = logits(network.expanded("add", np.float32(0.0), norm=False), variables, images)
    np.testing.assert_array_equal(expanded, logits(network.plain(), drop_ancillary(variables), images))


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_a_shared_branch_is_the_latent_kernel_and_trains_it():
    """Of its own it has a batch norm; its gradient reaches the kernel of each layer as f times a float network's."""
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 3))
    unit = lambda f: expanded_kit(Precision(), "add", f, shared=True).inner(5, name=None)
    variables = unit(1.0).init(jax.random.key(1), x, False)
    assert set(flatten(variables["ancillary"])) == {"ancillary_norm/scale", "ancillary_norm/bias"}
    kernel = variables["params"]["conv"]["kernel"]
    outputs = {f: unit(f).apply(variables, x, False) for f in (0.0, 0.5)}
    expected = 0.5 * convolved(x, kernel) / np.sqrt(1 + 1e-4)
    np.testing.assert_allclose(outputs[0.5] - outputs[0.0], expected, rtol=1e-4, atol=1e-5)

    def total(kernel, f):
        params = {**variables["params"], "conv": {"kernel": kernel}}
        return jnp.sum(unit(f).apply({**variables, "params": params}, x, False))

    gradient = {f: jax.grad(total)(kernel, f) for f in outputs}
    float_gradient = jax.grad(lambda kernel: jnp.sum(convolved(x, kernel)))(kernel)
    expected = 0.5 * float_gradient / np.sqrt(1 + 1e-4)
    np.testing.assert_allclose(gradient[0.5] - gradient[0.0], expected, rtol=1e-4, atol=1e-4)


def test_shared_branches_are_found_in_order_and_leave_as_others_do():
    network = architecture()
    assert expanded_layers(network.expanded("subtract", 1.0, shared=True), (40, 40, 1)) == LAYERS
    variables = used_variables(network.expanded("subtract", 0.0, shared=True), digit_images(100))
    images = digit_images(50)
    expanded = logits(network.expanded("subtract", np.float32(0.0), shared=True), variables, images)
    np.testing.assert_array_equal(expanded, logits(network.plain(), drop_ancillary(variables), images))


def test_layers_one_after_another_train_and_leave():
    """Without batch norm as well: the branch trains, the front goes first, and all of it is left behind."""
    experiment = tiny(expansion__norm=False, factor__order="front", train__epochs=0.5)
    zero = experiment.task.factor.zero_from
    before, after = trained(experiment, zero - 1), trained(experiment, zero + 1)
    assert ancillary_leaves(before) and not ancillary_leaves(after)
    assert int(after.tally.broken_step) == -1
    kernel = lambda state: state.weights["ancillary"]["conv6"]["ancillary_conv"]["kernel"]
    assert not np.array_equal(kernel(before), kernel(experiment.initial_state()))
    shares = jax.device_get(experiment.branch_shares(before, experiment.test.split.images[:64]))
    assert shares["conv1"] == 0 < shares["conv6"]


@pytest.mark.parametrize("fields", [{"expansion__shared": True}, {"expansion__distill": 1.0}])
def test_a_step_at_f_0_is_that_without_the_branch(fields):
    """To rounding: two programs add the branch's exact zeros to the kernel's gradient in different places."""
    experiment = tiny(**fields)
    zero = experiment.task.factor.zero_from
    state = experiment.initial_state()
    for step in range(zero):
        state = experiment.step(state, *experiment.batch(step))
    copied = jax.tree.map(jnp.copy, state)
    with_branch = experiment.step(state, *experiment.batch(zero))
    without = experiment.step(experiment.left_behind(copied, zero), *experiment.batch(zero))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, without.weights, drop_ancillary(with_branch.weights))
    jax.tree.map(np.testing.assert_array_equal, without.statistics, drop_ancillary(with_branch.statistics))


def test_pressure_closes_the_gates():
    """More pressure, smaller factors of the layers; f g is what scales the branch, which has no gain of its own."""
    gates = {}
    for pressure in (1e-6, 30.0):
        experiment = tiny(expansion__pressure=pressure, optimizer__learning_rate=0.01)
        state = trained(experiment, experiment.task.factor.zero_from - 1)
        found = flatten(state.weights["ancillary"])
        gates[pressure] = [float(gate(found[f"{layer}/gate"])) for layer in LAYERS]
        assert len(set(gates[pressure])) == len(LAYERS)
    assert not [path for path in found if path.endswith("ancillary_norm/scale")]
    assert max(gates[30.0]) < 0.2 < max(gates[1e-6])


def test_the_loss_has_the_pressure_and_the_branch_the_gate():
    task = tiny(expansion__pressure=0.5).task
    weights = {"ancillary": {"one": {"gate": jnp.float32(0.0)}, "two": {"gate": jnp.float32(-3.0)}}}
    g = 1 / (1 + np.exp(-3.0))
    assert float(closing(task, jnp.int32(0), weights)) == pytest.approx(0.5 * g / 2, rel=1e-5)
    assert float(closing(task, jnp.int32(task.factor.zero_from), weights)) == 0.0
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    unit = expanded_kit(Precision(), "add", 0.5, gated=True).inner(4, name=None)
    variables = unit.init(jax.random.key(1), x, False)
    closed = {**variables, "ancillary": {**variables["ancillary"], "gate": jnp.float32(-1.0)}}
    opened, shut = unit.apply(variables, x, False), unit.apply(closed, x, False)
    low = plain_kit(Precision()).inner(4).apply(drop_ancillary(variables), x, False)
    expected = 0.5 * g * convolved(x, variables["ancillary"]["ancillary_conv"]["kernel"]) / np.sqrt(1 + 1e-4)
    np.testing.assert_allclose(opened - low, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shut, low, atol=1e-6)


def test_the_low_branch_is_taught_by_the_expanded_network_while_f_is_above_0():
    """The written-out divergence of two forward passes; no gradient through the teacher; 0 once f is."""
    experiment = tiny(expansion__distill=0.5, model__dropout=0.0)
    task, state, images = experiment.task, experiment.initial_state(), experiment.test.split.images[:32]
    x = normalize(images, task.mean, task.std)
    params, statistics = state.weights["params"], state.statistics
    low, _ = task.architecture.plain().apply(drop_ancillary(state.variables), x, train=True, mutable=["batch_stats"])

    def loss(teacher, params, step=0):
        return taught(task, jnp.int32(step), teacher, params, statistics, x, {})

    teacher = jnp.asarray(np.random.default_rng(0).normal(size=low.shape), jnp.float32)
    p, q = jax.nn.softmax(teacher), jax.nn.softmax(low)
    assert float(loss(teacher, params)) == pytest.approx(
        0.5 * float(jnp.mean(jnp.sum(p * jnp.log(p / q), -1))), rel=1e-4
    )
    to_teacher, to_params = jax.grad(loss, (0, 1))(teacher, params)
    assert not to_teacher.any() and to_params["conv3"]["conv"]["kernel"].any()
    assert float(loss(teacher, params, task.factor.zero_from)) == 0.0
    assert float(loss(low, params)) == pytest.approx(0.0, abs=1e-6)


def test_f_waits_for_the_low_precision_network_and_not_for_ever():
    """f never falls faster than without patience, stays above 0 longer, and is 0 when the branch leaves."""
    experiment = tiny(factor__end=0.3, factor__patience=0.2)
    task, quick = experiment.task, dataclasses.replace(experiment.task.factor, patience=0)
    limit, end = task.factor.zero_from, quick.zero_from
    state, factors = experiment.initial_state(), []
    for step in range(limit):
        factors.append(float(task.factor(task.clock(state))))
        state = experiment.step(state, *experiment.batch(step))
    assert all(later >= float(quick(step)) for step, later in enumerate(factors))
    assert factors[0] == 1.0 and factors[end] > 0 and factors == sorted(factors, reverse=True)
    assert float(task.factor(task.clock(state))) == 0.0
    left = experiment.left_behind(state, limit)
    assert not left.expanded and float(task.factor(task.clock(left))) == 0.0
    assert int(experiment.step(left, *experiment.batch(limit)).tally.broken_step) == -1
