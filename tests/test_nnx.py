"""A network in Flax NNX: converted, trained from f = 1 to 0, stripped, frozen and exported."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import plq
from plq.layers.nnx_layers import Ancillary, AncillaryStat, Factor, set_factor

RULES = [
    plq.Rule("head", 8, 8, expand=False),
    plq.Rule("blocks/*", 2, 2, weights="lsq", activations="lsq"),
    plq.Rule("stem", 8, 32, expand=False),
]
SHAPE = (12, 10, 3)


class Block(nnx.Module):
    def __init__(self, channels, rngs):
        self.conv1 = nnx.Conv(channels, channels, (3, 3), rngs=rngs)
        self.norm1 = nnx.BatchNorm(channels, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), feature_group_count=2, use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(channels, rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(x + self.norm2(self.conv2(y)))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.List([Block(8, rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(x.mean((1, 2))))


def images(count):
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), np.uint8)


def normalized(pixels):
    return jnp.asarray(pixels, jnp.float32) / 255


def logits(model, x):
    served = nnx.clone(model)
    served.eval()
    return nnx.jit(lambda model, x: model(x))(served, x)


@pytest.fixture(scope="module")
def trained():
    """The float model, and the expanded one after five steps to f = 0."""
    model, x = Net(nnx.Rngs(0)), normalized(images(8))
    expanded = plq.calibrate(plq.convert(model, RULES, 1.0), x, kernels=True)
    optimizer = nnx.Optimizer(expanded, optax.sgd(0.05), wrt=nnx.Param)
    labels = np.arange(8) % 5

    @nnx.jit
    def step(model, optimizer, f):
        set_factor(model, f)
        loss = lambda model: optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()
        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    losses = [float(step(expanded, optimizer, f)) for f in (1.0, 0.8, 0.5, 0.2, 0.0)]
    assert np.isfinite(losses).all()
    return model, expanded


def test_the_parameters_stay_where_the_model_has_them(trained):
    model, expanded = trained
    own = {path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    kept = {path for path, _ in nnx.to_flat_state(nnx.state(plq.prune(expanded), nnx.Param))}
    extra = {path[-1] for path in kept - own}
    assert own <= kept and extra == {"weight_step", "activation_step"}
    assert not nnx.to_flat_state(nnx.state(plq.prune(expanded), (Ancillary, AncillaryStat, Factor)))
    assert nnx.to_flat_state(nnx.state(expanded, Ancillary))


def test_training_moves_the_branch_and_its_statistics(trained):
    fresh = plq.convert(Net(nnx.Rngs(0)), RULES, 1.0)
    for kind in (Ancillary, AncillaryStat):
        before, after = (dict(nnx.to_flat_state(nnx.state(model, kind))) for model in (fresh, trained[1]))
        assert before.keys() == after.keys() and len(before) >= 8
        assert all((before[path][...] != after[path][...]).any() for path in before)


def test_the_branch_leaves_bit_for_bit(trained):
    expanded, x = trained[1], normalized(images(5))
    np.testing.assert_array_equal(logits(expanded, x), logits(plq.prune(expanded), x))
    set_factor(other := nnx.clone(expanded), 0.5)
    assert (logits(other, x) != logits(expanded, x)).any()


def test_it_is_frozen_and_exported(trained, tmp_path):
    served = plq.prune(trained[1])
    names = list("abcde")
    frozen = plq.freeze(served, image_shape=SHAPE, mean=(0.0,), std=(255.0,), class_names=names)
    bits = {node.name: node.grid.bits for node in frozen.frozen.graph.nodes if getattr(node, "grid", None)}
    assert bits["blocks/0/conv1"] == 2 and bits["blocks/1/conv2/act"] == 2 and bits["head"] == 8
    np.testing.assert_allclose(frozen(images(4)), logits(served, normalized(images(4))), atol=1e-4)
    for format in ("onnx", "stablehlo", "c"):
        assert "run on 4 images" in plq.export(frozen, tmp_path / format, format=format, images=images(4))[-1]


def test_what_is_wrong_is_one_line(trained):
    model, expanded = trained
    cases = {
        "is not stripped, it has branches": lambda: plq.freeze(expanded, image_shape=SHAPE),
        "found one that is converted already": lambda: plq.convert(expanded, RULES),
        "rules 'heads': found no layer": lambda: plq.convert(model, [plq.Rule("heads", 2, 2), *RULES]),
        "factor=1.5: allowed 0 to 1": lambda: plq.convert(model, RULES, 1.5),
        "factor=2.0: allowed 0 to 1": lambda: set_factor(expanded, 2.0),
        "found no branch": lambda: set_factor(plq.prune(expanded), 0.5),
        "found variables beside an nnx.Module": lambda: plq.freeze(plq.prune(expanded), {}, image_shape=SHAPE),
    }
    for message, call in cases.items():
        with pytest.raises(plq.UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
