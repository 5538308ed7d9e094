"""The SVHN network: its shape at every width and size, and its pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import architecture

from plq.errors import UserError
from plq.layers.describe import layer_table
from plq.layers.kit import Precision
from plq.layers.operations import halve
from plq.models.registry import Architecture
from plq.prune import drop_ancillary
from plq.variables import ancillary_leaves, flatten


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


def trained_parameters(name, num_classes, size, **options):
    network = Architecture(name, num_classes, Precision(), **options).plain()
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(shapes["params"]).values())


@pytest.mark.parametrize(
    ("name", "classes", "size", "options", "published"),
    [
        ("resnet20", 10, 32, {"shortcut": "padding"}, 269_722),
        ("resnet32", 10, 32, {"shortcut": "padding"}, 464_154),
        ("resnet44", 10, 32, {"shortcut": "padding"}, 658_586),
        ("resnet56", 10, 32, {"shortcut": "padding"}, 853_018),
        ("resnet20", 10, 32, {}, 272_474),
        ("resnet18", 1000, 224, {}, 11_689_512),
        ("resnet34", 1000, 224, {}, 21_797_672),
        ("resnet50", 1000, 224, {}, 25_557_032),
        ("mobilenet_v1", 1000, 224, {}, 4_231_976),
        ("vgg_small", 10, 32, {}, 4_660_106),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, size, options, published):
    assert trained_parameters(name, classes, size, **options) == published


def test_alexnet_has_the_papers_shapes():
    rows = layer_table(Architecture("alexnet", 1000, Precision()).plain(), (224, 224, 3))
    assert [(row.name, row.output_shape) for row in rows] == [
        ("conv0", (54, 54, 96)),
        ("conv1", (27, 27, 256)),
        ("conv2", (14, 14, 384)),
        ("conv3", (14, 14, 384)),
        ("conv4", (6, 6, 256)),
        ("fc0", (4096,)),
        ("fc1", (4096,)),
        ("dense", (1000,)),
    ]
    assert rows[1].parameters == 5 * 5 * 48 * 256 + 2 * 256


@pytest.mark.parametrize(
    ("name", "size", "merge"),
    [
        ("resnet20", 32, "add"),
        ("resnet20", 32, "concat"),
        ("resnet50", 64, "add"),
        ("alexnet", 96, "concat"),
        ("vgg_small", 32, "concat"),
        ("mobilenet_v1", 64, "add"),
    ],
)
def test_networks_lose_their_branch_bit_for_bit(name, size, merge):
    found = Architecture(name, 10, Precision(), width=0.125)
    random = np.random.default_rng(0)
    x = jnp.asarray(random.random((4, size, size, 3), np.float32))
    network = found.expanded(merge, jnp.float32(0.0))
    variables = jax.jit(network.init)(jax.random.key(0, impl="rbg"), x)
    small = lambda leaf: jnp.asarray(random.uniform(0.05, 0.2, leaf.shape), jnp.float32)
    for name in ("batch_stats", "ancillary_stats"):  # small variances, so that signals reach the end
        variables[name] = jax.tree.map(small, variables[name])
    assert ancillary_leaves(variables)
    expected = jax.jit(network.apply)(variables, x)
    np.testing.assert_array_equal(jax.jit(found.plain().apply)(drop_ancillary(variables), x), expected)
    assert np.ptp(expected, axis=0).max() > 0


def test_an_option_that_a_network_lacks_is_refused():
    with pytest.raises(UserError, match="model.dropout=0.5: resnet20 has no dropout; leave it at 0.0"):
        Architecture("resnet20", 10, Precision(), dropout=0.5).check()
    with pytest.raises(UserError, match="model.shortcut=none: unknown"):
        Architecture("resnet20", 10, Precision(), shortcut="none").check()
