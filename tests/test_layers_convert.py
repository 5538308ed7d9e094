"""One's own network, plain Flax, in low precision and with branches, and without them again."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plq.checkpoint.prune import prune
from plq.errors import UserError
from plq.layers.convert import Rule, conversion_table, convert, unused_rules
from plq.layers.dropin import Conv, Dense
from plq.layers.variables import ancillary_leaves, flatten

RULES = [Rule("stem", 32, 32, expand=False), Rule("head", 8, 8, expand=False), Rule("*", 2, 2)]


class Own(nn.Module):
    """Written with no thought of plq: strided, depthwise, dilated, a shortcut, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(not train)(nn.Conv(8, (3, 3), name="stem")(x)))
        y = nn.relu(nn.BatchNorm(not train)(nn.Conv(8, (3, 3), feature_group_count=8, name="depthwise")(x)))
        x = x + nn.Conv(8, (3, 3), kernel_dilation=2, use_bias=False, name="dilated")(y)
        x = nn.relu(nn.Conv(16, (3, 3), strides=2, padding="VALID", name="strided")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).random((6, 12, 12, 3), np.float32))


@pytest.fixture(scope="module")
def variables(images):
    return jax.jit(convert(Own(), RULES, 1.0).init)(jax.random.key(0, impl="rbg"), images)


def run(network, variables, images):
    return np.asarray(jax.jit(network.apply)(variables, images))


def test_without_its_branch_it_gives_the_same_bits(images, variables):
    stripped = prune(variables)
    at_zero = run(convert(Own(), RULES, jnp.float32(0.0)), variables, images)
    np.testing.assert_array_equal(run(convert(Own(), RULES), stripped, images), at_zero)
    assert np.abs(run(convert(Own(), RULES, 1.0), variables, images) - at_zero).max() > 1e-3
    assert np.abs(run(Own(), stripped, images) - at_zero).max() > 1e-3  # it is not the float network


def test_variables_stay_where_the_network_has_them(images, variables):
    own = jax.eval_shape(Own().init, jax.random.key(0), images)
    kept = flatten(prune(variables))
    assert {path: leaf.shape for path, leaf in kept.items()} == {
        path: leaf.shape for path, leaf in flatten(own).items()
    }
    expanded = {path.split("/")[1] for path in ancillary_leaves(variables)}
    assert expanded == {"depthwise", "dilated", "strided"}


def test_32_bits_and_no_branch_is_the_network_itself(images, variables):
    rules, plain = [Rule("*", 32, 32, expand=False)], prune(variables)
    np.testing.assert_array_equal(run(convert(Own(), rules), plain, images), run(Own(), plain, images))


def test_the_branch_trains_and_not_at_f_0(images, variables):
    def loss(ancillary, f):
        mutable = ["batch_stats", "ancillary_stats"]
        given = {**variables, "ancillary": ancillary}
        return jnp.sum(convert(Own(), RULES, f).apply(given, images, train=True, mutable=mutable)[0] ** 2)

    gradient = jax.jit(jax.grad(loss))
    kernels = lambda f: [g for p, g in flatten(gradient(variables["ancillary"], f)).items() if p.endswith("kernel")]
    assert all(leaf.any() for leaf in kernels(0.7))
    assert not any(leaf.any() for leaf in kernels(0.0))
    assert gradient._cache_size() == 1


class Injected(nn.Module):
    """Takes its convolution and its dense layer as arguments."""

    conv: Any = nn.Conv
    dense: Any = nn.Dense

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(not train)(nn.Conv(8, (3, 3), name="stem")(x)))
        x = nn.relu(self.conv(8, (3, 3), strides=2, feature_group_count=2)(x))
        return self.dense(10)(nn.relu(self.conv(8, (3, 3), kernel_dilation=2)(x)).mean((1, 2)))


def test_a_network_that_takes_its_layers_as_arguments(images):
    fields = Rule("*", 2, 2).fields
    made = lambda *factor: Injected(partial(Conv, **fields(*factor)), partial(Dense, **fields(*factor)))
    variables = jax.jit(made(1.0).init)(jax.random.key(0, impl="rbg"), images)
    stripped = prune(variables)
    own = jax.eval_shape(Injected().init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, stripped) == jax.tree.map(jnp.shape, own)
    assert {path.split("/")[1] for path in ancillary_leaves(variables)} == {"Conv_0", "Conv_1", "Dense_0"}
    at_zero = run(made(jnp.float32(0.0)), variables, images)
    np.testing.assert_array_equal(run(made(), stripped, images), at_zero)
    assert np.abs(run(made(1.0), variables, images) - at_zero).max() > 1e-3
    by_rules = convert(Injected(), [Rule("stem", 32, 32, expand=False), Rule("*", 2, 2)])
    np.testing.assert_array_equal(run(by_rules, stripped, images), at_zero)


@pytest.mark.parametrize("axes", [1, 3])
def test_other_numbers_of_axes(axes):
    network = nn.Conv(4, (3,) * axes)
    x = jnp.asarray(np.random.default_rng(1).random((2, *(5,) * axes, 3), np.float32))
    rules = [Rule("*", 1, 2)]
    variables = convert(network, rules, 0.0).init(jax.random.key(0), x)
    stripped = run(convert(network, rules), prune(variables), x)
    np.testing.assert_array_equal(run(convert(network, rules, 0.0), variables, x), stripped)


def test_first_match_wins_and_unused_rules_are_named():
    table = {row.path: row.rule for row in conversion_table(Own(), RULES, (12, 12, 3))}
    assert table == {
        "stem": RULES[0],
        "depthwise": RULES[2],
        "dilated": RULES[2],
        "strided": RULES[2],
        "head": RULES[1],
    }
    more = [*RULES, Rule("heads", 4, 4)]
    assert unused_rules(Own(), more, (12, 12, 3)) == [more[-1]]
    with pytest.raises(UserError, match="rules 'heads': found no layer"):
        convert(Own(), more).init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    with pytest.raises(UserError, match="rule 'stem': weight_bits=9"):
        Rule("stem", 9, 2)
