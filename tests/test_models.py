"""The SVHN network: its shape at every width and size, and its pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import architecture

from plq.errors import UserError
from plq.layers.describe import layer_table
from plq.models.svhn import halve
from plq.variables import flatten


def test_full_width_is_the_papers():
    rows = layer_table(architecture(width=1.0).plain(), (40, 40, 3))
    assert [(row.name, row.kind, row.output_shape) for row in rows] == [
        ("conv0", "conv 5x5", (18, 18, 48)),
        ("conv1", "conv 3x3", (18, 18, 64)),
        ("conv2", "conv 3x3", (9, 9, 64)),
        ("conv3", "conv 3x3", (7, 7, 128)),
        ("conv4", "conv 3x3", (7, 7, 128)),
        ("conv5", "conv 3x3", (5, 5, 128)),
        ("conv6", "conv 5x5", (1, 1, 512)),
        ("dense", "dense", (10,)),
    ]
    assert [row.weight_bits for row in rows] == [32, 1, 1, 1, 1, 1, 1, 32]
    assert [row.activation_bits for row in rows] == [2, 2, 2, 2, 2, 2, 32, 32]


@pytest.mark.parametrize("merge", [None, "add", "concat"])
@pytest.mark.parametrize("size", [40, 43, 64])
@pytest.mark.parametrize("width", [0.01, 0.125, 0.5])
def test_any_width_and_size(width, size, merge):
    found = architecture(width=width)
    network = found.expanded(merge, 0.5) if merge else found.plain()
    x = jnp.zeros((2, size, size, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.eval_shape(network.apply, variables, x).shape == (2, 10)


def test_smaller_images_are_refused():
    with pytest.raises(UserError, match="data.image_size: found images of 32x32, svhn takes 40x40 or more"):
        layer_table(architecture().plain(), (32, 32, 3))


def test_table_counts_every_variable():
    network = architecture().expanded("concat", 1.0)
    rows = layer_table(network, (40, 40, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 40, 40, 1)))
    total = lambda collection: sum(np.prod(leaf.shape) for leaf in flatten(variables.get(collection, {})).values())
    assert sum(row.parameters for row in rows) == total("params")
    assert sum(row.ancillary_parameters for row in rows) == total("ancillary")
    assert sum(row.bytes_now for row in rows) == 4 * sum(total(collection) for collection in variables)
    conv3 = rows[3]
    kernel, norm = 3 * 3 * 8 * 16, 4 * 16
    assert conv3.bytes_deployed == kernel // 8 + 4 * norm


@pytest.mark.parametrize("shape", [(2, 6, 6, 3), (1, 7, 9, 2), (3, 2, 2, 1)])
def test_halving_is_2x2_max_pooling(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    pool = lambda x: nn.max_pool(x, (2, 2), strides=(2, 2))
    np.testing.assert_array_equal(halve(x), pool(x))
    weight = jax.random.normal(jax.random.key(1), pool(x).shape)
    gradient = lambda f: jax.grad(lambda x: jnp.sum(f(x) * weight))(x)
    np.testing.assert_array_equal(gradient(halve), gradient(pool))
