"""The expanded layer: what f does, and that taking the branch away changes nothing at f = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import IMAGE_SHAPE, QUANTIZERS, architecture, digit_images, logits, used_variables

from plq.checkpoint.prune import prune, pruned_leaves
from plq.layers.expanded import MERGES
from plq.layers.variables import KEPT, ancillary_leaves, flatten
from plq.quant.base import FLOAT_BITS
from plq.quant.registry import ACTIVATIONS, WEIGHTS


@pytest.fixture(scope="module")
def images():
    return digit_images(1000)


MERGED = [(case, merge) for index, case in enumerate(QUANTIZERS) for merge in ("concat", MERGES[index % 2])]


@pytest.mark.parametrize(("case", "merge"), MERGED, ids=[f"{'-'.join(map(str, c[:4]))}-{m}" for c, m in MERGED])
def test_stripped_logits_are_bit_equal_at_f_0_on_1000_images(case, merge, images):
    weights, bits, activations, activation_bits, options = case
    network = architecture(weights, bits, activation_bits, activations=activations, **options)
    variables = used_variables(network.expanded(merge, 0.0), digit_images(100))
    stripped = prune(variables)
    assert set(stripped) == set(KEPT)
    expected = logits(network.expanded(merge, jnp.float32(0.0)), variables, images)
    np.testing.assert_array_equal(logits(network.plain(), stripped, images), expected)
    assert len(np.unique(expected.argmax(1))) > 1 and np.ptp(expected, axis=0).min() > 0


def test_the_cases_cover_every_quantizer():
    assert {case[0] for case in QUANTIZERS} == set(WEIGHTS) and {merge for _, merge in MERGED} == set(MERGES)
    assert {case[2] for case in QUANTIZERS} == {n for n, a in ACTIVATIONS.items() if set(a.legal_bits) != {FLOAT_BITS}}


@pytest.mark.parametrize("merge", MERGES)
def test_the_branch_matters_while_f_is_above_0(merge, images):
    network = architecture()
    variables = used_variables(network.expanded(merge, 0.0), digit_images(100))
    at = lambda f: logits(network.expanded(merge, f), variables, images[:50])
    assert np.abs(at(1.0) - at(0.0)).max() > 1e-2
    assert np.abs(at(1.0) - at(0.5)).max() > 1e-2


def test_merges_are_what_they_are_called():
    from plq.layers.factory import QuantConfig, expanded_factory, plain_factory

    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    outputs = {}
    for merge in MERGES:
        unit = expanded_factory(QuantConfig(), merge, 0.5).inner(4, name=None)
        variables = unit.init(jax.random.key(1), x, False)
        outputs[merge] = unit.apply(variables, x, False)
    plain = plain_factory(QuantConfig()).inner(4)
    low = plain.apply(prune(variables), x, False)
    ancillary = outputs["concat"].ancillary
    np.testing.assert_array_equal(outputs["concat"].low, low)
    np.testing.assert_array_equal(outputs["add"], low + ancillary)
    np.testing.assert_array_equal(outputs["subtract"], low - ancillary)
    written_out = jax.lax.conv_general_dilated(
        x,
        variables["ancillary"]["ancillary_conv"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(ancillary, 0.5 * written_out / np.sqrt(1 + 1e-4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge", MERGES)
def test_gradient_of_the_branch_is_zero_at_f_0_and_not_before(merge):
    network, x = architecture(), jnp.asarray(digit_images(8), jnp.float32) / 256
    variables = used_variables(network.expanded(merge, 0.0), digit_images(100))

    def loss(ancillary, f):
        return jnp.sum(network.expanded(merge, f).apply({**variables, "ancillary": ancillary}, x) ** 2)

    gradient = jax.jit(jax.grad(loss))
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient(variables["ancillary"], 0.0)))
    before = flatten(gradient(variables["ancillary"], 0.7))
    assert all(leaf.any() for path, leaf in before.items() if "/ancillary_" in path)


def test_kept_variables_start_the_same_with_and_without_a_branch():
    network, x = architecture("syq", 2), jnp.zeros((1, *IMAGE_SHAPE))
    start = lambda net: jax.jit(net.init)(jax.random.key(3, impl="rbg"), x)
    plain = start(network.plain())
    for merge in MERGES:
        expanded = start(network.expanded(merge, 1.0))
        jax.tree.map(np.testing.assert_array_equal, prune(expanded), plain)


@pytest.mark.parametrize("merge", MERGES)
def test_first_and_last_layers_have_no_branch_of_their_own(merge):
    network = architecture()
    variables = jax.eval_shape(network.expanded(merge, 1.0).init, jax.random.key(0), jnp.zeros((1, *IMAGE_SHAPE)))
    expanded = {path.split("/")[1] for path in ancillary_leaves(variables) if "ancillary_conv" in path}
    assert expanded == {f"conv{i}" for i in range(1, 7)}
    wider = {path.split("/")[1] for path in ancillary_leaves(variables) if "extra_kernel" in path}
    assert ("dense" in wider) == (merge == "concat")


def test_one_compilation_serves_all_factors():
    network, traces = architecture(), []
    variables = used_variables(network.expanded("add", 0.0), digit_images(100))

    @jax.jit
    def apply(f, x):
        traces.append(f)
        return network.expanded("add", f).apply(variables, x)

    x = jnp.zeros((2, *IMAGE_SHAPE))
    for f in np.linspace(0, 1, 7, dtype=np.float32):
        apply(jnp.asarray(f), x)
    assert len(traces) == 1


def test_removal_counts_what_leaves():
    variables = {
        "params": {"conv": {"kernel": np.zeros((3, 3))}},
        "ancillary": {"conv": {"kernel": np.zeros((2, 5), np.float32)}},
        "ancillary_stats": {"norm": {"mean": np.zeros(7, np.float32)}},
    }
    found = pruned_leaves(variables)
    assert found.paths == ["ancillary/conv/kernel", "ancillary_stats/norm/mean"]
    assert (found.parameters, found.bytes) == (10, 4 * 17)


def test_drop_ancillary_keeps_every_other_leaf_as_the_same_object():
    import optax

    weights = {"params": {"w": jnp.ones(3)}, "ancillary": {"a": jnp.ones(2)}}
    moments = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(weights)
    pruned = prune(moments)
    assert not ancillary_leaves(pruned) and ancillary_leaves(moments)
    expected = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init({"params": weights["params"]})
    assert jax.tree.structure(pruned) == jax.tree.structure(expected)
    assert pruned[1][0].mu["params"]["w"] is moments[1][0].mu["params"]["w"]
