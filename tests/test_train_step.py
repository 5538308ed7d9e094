"""The training step over a whole schedule: compilations, leaving the branch, the mesh, precision, roles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import tiny, trained

from plq.checkpoint.prune import prune
from plq.layers.describe import variable_roles
from plq.layers.variables import ancillary_leaves, flatten


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"expansion__merge": "concat", "quant__activations": "abs"},
        {"expansion__merge": "subtract", "optimizer__weight_decay": 1e-3, "optimizer__clip_norm": 1.0},
        {"quant__weights": "syq", "quant__weight_bits": 2, "optimizer__name": "sgd", "optimizer__nesterov": True},
        {"quant__weight_bits": 4, "quant__activations": "lsq", "expansion__merge": "subtract"},
        {
            "quant__weights": "lsq",
            "quant__weight_bits": 3,
            "quant__granularity": "channel",
            "quant__activations": "lsq_plus",
            "quant__first_bits": 8,
            "quant__last_bits": 8,
            "quant__gradient_bits": 6,
            "expansion__merge": "concat",
            "optimizer__weight_decay": 1e-3,
            "optimizer__decay_roles": ("conv", "quantizer"),
        },
        {"quant__weights": "apot", "quant__weight_bits": 3, "quant__activations": "pact", "expansion__merge": "concat"},
    ],
)
def test_leaving_the_branch_behind_changes_no_kept_value(fields):
    """Bit for bit on one machine: at f = 0 the branch adds exact zeros to values and gradients."""
    leaving, keeping = tiny(**fields), tiny(**fields, expansion__leave=False)
    left, kept = trained(leaving), trained(keeping)
    assert not ancillary_leaves(left) and ancillary_leaves(kept)
    assert_same((left.weights, left.statistics, left.moments), prune((kept.weights, kept.statistics, kept.moments)))
    assert leaving.step._cache_size() == 2  # one expanded, one pruned: no retrace over the schedule of f
    assert keeping.step._cache_size() == 1


def test_moments_go_on_when_the_branch_leaves():
    setup = tiny()
    zero = setup.task.factor.end_step
    state = setup.initial_state()
    for step in range(zero):
        state = setup.step(state, *setup.batch(step))
    pruned = setup.pruned(state, zero)
    before, after = flatten_state(state), flatten_state(pruned)
    assert set(after) == {path for path in before if "ancillary" not in path}
    assert all(after[path] is before[path] for path in after)
    assert any(np.any(leaf) for path, leaf in after.items() if path.startswith("moments"))


def flatten_state(state):
    from plq.layers.variables import leaf_path

    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def test_same_seed_same_bits_other_seed_other_bits():
    first, again, other = (trained(tiny(train__seed=seed), 5) for seed in (3, 3, 4))
    assert_same(first, again)
    assert not np.array_equal(
        first.weights["params"]["dense"]["conv"]["kernel"], other.weights["params"]["dense"]["conv"]["kernel"]
    )


def test_two_devices_train_as_one():
    """Global batch statistics, and augmentation that does not depend on the sharding."""
    fields = {
        "data__pad": 2,
        "data__flip": True,
        "model__dropout": 0.0,
        "quant__weight_bits": 32,
        "quant__activation_bits": 32,
    }
    one, two = trained(tiny(**fields, mesh__data=1), 3), trained(tiny(**fields, mesh__data=2), 3)
    assert len(jax.devices()) == 2
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    jax.tree.map(close, jax.device_get(one.statistics), jax.device_get(two.statistics))
    close(one.tally.loss, two.tally.loss)


def test_bfloat16_is_for_the_products_only():
    setup = tiny(quant__dtype="bfloat16")
    state = trained(setup, 2)
    floating = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floating} == {jnp.dtype("float32")}
    jaxpr = str(jax.make_jaxpr(setup.step)(state, *setup.batch(2)))
    products = [line for line in jaxpr.splitlines() if "conv_general_dilated[" in line]
    assert products and all(":bf16" in line for line in products)


def test_a_step_that_is_not_finite_is_remembered():
    setup = tiny()
    state = trained(setup, 2)
    assert int(state.tally.broken_step) == -1
    weights = jax.tree.map(lambda leaf: leaf * jnp.nan, state.weights)
    for step in (2, 3):
        state = setup.step(state.replace(weights=weights), *setup.batch(step))
        weights = jax.tree.map(jnp.copy, state.weights)
    assert int(state.tally.broken_step) == 2


def test_low_bit_gradients_are_used_when_asked_for():
    plain, quantized = trained(tiny(), 1), trained(tiny(quant__gradient_bits=2), 1)
    kernel = lambda state: state.moments[0].mu["params"]["conv3"]["conv"]["kernel"]
    assert not np.array_equal(kernel(plain), kernel(quantized))


def test_learned_scales_are_trained_and_decayed_when_asked_for():
    """With gradients of few bits and products in bfloat16 too; a decay of the role "quantizer" touches nothing else."""
    fields = {
        "quant__weights": "lsq",
        "quant__weight_bits": 2,
        "quant__activations": "pact",
        "quant__gradient_bits": 6,
        "quant__dtype": "bfloat16",
        "quant__last_bits": 8,
        "optimizer__name": "sgd",
        "optimizer__momentum": 0.0,
    }
    plain, decaying = tiny(**fields), tiny(**fields, optimizer__weight_decay=1.0, optimizer__decay_roles=("quantizer",))
    start = jax.device_get(plain.initial_state())
    after, decayed = trained(plain, 1), trained(decaying, 1)
    assert int(after.tally.broken_step) == -1
    before, after, decayed = (flatten(state.weights["params"]) for state in (start, after, decayed))
    learned = [path for path in before if path.rpartition("/")[2] in ("step", "alpha")]
    assert {path.split("/")[0] for path in learned} == {*(f"conv{i}" for i in range(7)), "dense"}
    for path in before:
        assert np.any(after[path] != before[path]) or path == "conv6/conv/bias", path
        step = plain.config.optimizer.learning_rate if path in learned else 0.0
        np.testing.assert_allclose(after[path] - decayed[path], step * before[path], rtol=1e-3, atol=1e-7)


def test_a_broken_scale_is_remembered_too():
    setup = tiny(quant__weights="lsq", quant__weight_bits=2, quant__activations="lsq")
    for leaf in ("conv/step", "act/step", "conv/kernel"):
        state = setup.initial_state()
        layer, name = leaf.split("/")
        variables = state.weights["params"]["conv2"][layer]
        variables[name] = variables[name] * jnp.nan
        assert int(setup.step(state, *setup.batch(0)).tally.broken_step) == 0, leaf


def test_roles_cover_every_trained_variable():
    task = tiny(quant__weights="syq", expansion__merge="concat").task
    roles = flatten(variable_roles(task.architecture.expanded("concat", 1.0), (40, 40, 1)))
    assert roles["params/conv0/conv/kernel"] == "conv" and roles["params/conv0/conv/bias"] == "bias"
    assert roles["params/dense/conv/kernel"] == "dense" and roles["params/conv3/norm/scale"] == "norm"
    assert roles["params/conv3/conv/scale"] == "quantizer"
    learning = tiny(quant__weights="lsq", quant__activations="lsq_plus", quant__first_bits=8).task.architecture
    more = flatten(variable_roles(learning.expanded("concat", 1.0), (40, 40, 1)))
    scales = {path for path, role in more.items() if role == "quantizer"}
    acts = {f"params/conv{i}/act/{name}" for i in range(6) for name in ("step", "offset")}
    assert scales == acts | {f"params/conv{i}/conv/step" for i in range(7)}
    assert roles["ancillary/conv3/ancillary_conv/kernel"] == "ancillary"
    assert roles["ancillary/conv3/ancillary_norm/bias"] == "norm"
    assert roles["ancillary/conv3/conv/extra_kernel"] == "ancillary"
