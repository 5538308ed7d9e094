"""The networks: shapes, parameters, low-precision inputs of every inner layer, and removal of the branch."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import architecture

from plq.checkpoint.prune import prune
from plq.errors import UserError
from plq.layers.conv import QuantConv
from plq.layers.describe import layer_table
from plq.layers.expanded import Concat
from plq.layers.factory import QuantConfig
from plq.layers.operations import max_pool_2x2
from plq.layers.variables import ancillary_leaves, flatten
from plq.models import mobilenet
from plq.models.registry import NETWORKS, Architecture
from plq.models.resnet import SHORTCUTS, ResNet


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
    np.testing.assert_array_equal(max_pool_2x2(x), pool(x))
    weight = jax.random.normal(jax.random.key(1), pool(x).shape)
    gradient = lambda f: jax.grad(lambda x: jnp.sum(f(x) * weight))(x)
    np.testing.assert_array_equal(gradient(max_pool_2x2), gradient(pool))


def trained_parameters(name, num_classes, size, **options):
    network = Architecture(name, num_classes, QuantConfig(), **options).plain()
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
        ("resnet20", 10, 32, {"block": "pre"}, 272_282),
        ("resnet20", 10, 32, {"block": "bireal"}, 272_282),
        ("resnet18", 1000, 224, {"block": "pre"}, 11_687_848),
        ("resnet34", 1000, 224, {"block": "pre"}, 21_796_008),
        ("resnet50", 1000, 224, {"block": "pre"}, 25_549_480),
        ("mobilenet_v1", 1000, 224, {}, 4_231_976),
        ("mobilenet_v2", 1000, 224, {}, 3_504_872),
        ("mobilenet_v2", 1000, 224, {"width": 1.4}, 6_108_776),
        ("vgg_small", 10, 32, {}, 4_660_106),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, size, options, published):
    assert trained_parameters(name, classes, size, **options) == published


def test_alexnet_has_the_papers_shapes():
    rows = layer_table(Architecture("alexnet", 1000, QuantConfig()).plain(), (224, 224, 3))
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
    ("total", "size", "outputs"),
    [(32, 224, [112, 56, 28, 14, 14, 7, 7]), (8, 32, [32, 32, 16, 8, 8, 4, 4]), (4, 32, [32, 32, 32, 16, 16, 8, 8])],
)
def test_mobilenet_v2_for_images_of_any_size(total, size, outputs):
    network = Architecture("mobilenet_v2", 10, QuantConfig(), stride=total).plain()
    rows = {row.name: row for row in layer_table(network, (size, size, 3))}
    stages = [0, 2, 5, 9, 12, 15, 16]  # the last block of each
    assert [rows[f"block{index}_project"].output_shape[0] for index in stages] == outputs
    assert [rows[f"block{index}_project"].output_shape[2] for index in stages] == [16, 24, 32, 64, 96, 160, 320]


def test_mobilenet_v1_has_the_stride_asked_for():
    for total in (4, 8, 16, 32):
        rows = layer_table(Architecture("mobilenet_v1", 10, QuantConfig(), stride=total).plain(), (64, 64, 3))
        assert rows[-2].output_shape == (64 // total, 64 // total, 1024)


ARCHITECTURES = [
    *[(name, {}, "add") for name in NETWORKS],
    *[("resnet20", {"block": block, "shortcut": cut}, "add") for block in ("pre", "bireal") for cut in SHORTCUTS],
    ("resnet50", {"block": "pre"}, "add"),
    *[("resnet20", {"block": block}, "concat") for block in ("post", "pre", "bireal")],
    ("svhn", {}, "concat"),
    ("mobilenet_v2", {}, "concat"),
]


@pytest.mark.parametrize(("name", "options", "merge"), ARCHITECTURES, ids=str)
def test_every_inner_layer_gets_a_low_bit_input_at_f_0(name, options, merge):
    """Products and norms are made up: what stands between them must bring anything onto the grid."""
    network = Architecture(name, 3, QuantConfig(weight_bits=2), width=0.001, **options).expanded(merge, 0.0)
    size = {"svhn": 40, "alexnet": 96}.get(name, 32)
    random = np.random.default_rng(0)
    normal = lambda shape: random.normal(0.5, 0.4, shape).astype(np.float32)
    shapes, inputs = {}, {}

    def note_shape(next_function, args, kwargs, context):
        output = next_function(*args, **kwargs)
        shapes[context.module.path, context.method_name] = getattr(output, "shape", None)
        return output

    def make_up(next_function, args, kwargs, context):
        module, key = context.module, (context.module.path, context.method_name)
        if not isinstance(module, (QuantConv, nn.BatchNorm)) or context.method_name != "__call__":
            return next_function(*args, **kwargs)
        if isinstance(module, QuantConv) and module.weights.bits == 2:
            inputs[module.path] = args[0].low if isinstance(args[0], Concat) else args[0]
        return normal(shapes[key])

    x = normal((16, size, size, 3))
    with nn.intercept_methods(note_shape):
        jax.eval_shape(network.init, jax.random.key(0), x)
    with nn.intercept_methods(make_up):
        network.apply({}, x)
    assert len(inputs) == sum(row.weight_bits == 2 for row in layer_table(network, x.shape[1:])) > 3
    for layer, values in inputs.items():
        assert 1 < len(np.unique(values)) <= 4, layer


def shorten(monkeypatch):
    """Networks of fewer blocks, of every kind, for the compiler's sake."""
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, stages=(2, 1), small_images=True))
    monkeypatch.setitem(NETWORKS, "resnet50", partial(ResNet, stages=(2, 1), bottleneck=True))
    monkeypatch.setattr(mobilenet, "LAYERS", mobilenet.LAYERS[:3])
    monkeypatch.setattr(mobilenet, "BLOCKS", ((1, 16, 1, 1), (6, 24, 2, 2)))


@pytest.mark.parametrize(
    ("name", "size", "merge", "options"),
    [
        ("resnet20", 32, "add", {}),
        ("resnet20", 32, "concat", {"shortcut": "padding"}),
        ("resnet20", 32, "add", {"block": "bireal"}),
        ("resnet20", 32, "concat", {"block": "pre"}),
        ("resnet50", 64, "add", {}),
        ("resnet50", 64, "subtract", {"block": "pre"}),
        ("alexnet", 96, "concat", {}),
        ("vgg_small", 32, "concat", {}),
        ("mobilenet_v1", 32, "add", {"stride": 4}),
        ("mobilenet_v2", 32, "add", {"stride": 4}),
        ("mobilenet_v2", 32, "concat", {"stride": 4}),
    ],
)
def test_networks_lose_their_branch_bit_for_bit(name, size, merge, options, monkeypatch):
    shorten(monkeypatch)
    found = Architecture(name, 10, QuantConfig(), width=0.125, **options)
    random = np.random.default_rng(0)
    x = jnp.asarray(random.random((4, size, size, 3), np.float32))
    network = found.expanded(merge, jnp.float32(0.0))
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    kernel = lambda shape: random.normal(0, 0.3, shape)
    vector = lambda shape: random.uniform(0.1, 0.9, shape)
    make = lambda leaf: (kernel if len(leaf.shape) > 1 else vector)(leaf.shape).astype(np.float32)
    variables = jax.tree.map(make, shapes)
    assert ancillary_leaves(variables)
    expected = jax.jit(network.apply)(variables, x)
    np.testing.assert_array_equal(jax.jit(found.plain().apply)(prune(variables), x), expected)
    assert np.ptp(expected, axis=0).max() > 0


def test_an_option_that_a_network_lacks_is_refused():
    with pytest.raises(UserError, match="model.dropout=0.5: resnet20 has no dropout; leave it at 0.0"):
        Architecture("resnet20", 10, QuantConfig(), dropout=0.5).check()
    with pytest.raises(UserError, match="model.block=pre: vgg_small has no block; leave it at post"):
        Architecture("vgg_small", 10, QuantConfig(), block="pre").check()
    with pytest.raises(UserError, match="model.block=bireal: found a network of bottleneck blocks"):
        layer_table(Architecture("resnet50", 10, QuantConfig(), block="bireal").plain(), (64, 64, 3))
    with pytest.raises(UserError, match="model.shortcut=none: unknown"):
        Architecture("resnet20", 10, QuantConfig(), shortcut="none").check()
