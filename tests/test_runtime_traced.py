"""Fragments of networks as graphs: the same numbers by JAX, by ONNX Runtime, and as the C export computes them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plq.errors import UserError
from plq.exporters.c.reference import Reference
from plq.exporters.qdq import QDQ
from plq.exporters.running import feed, onnx_session
from plq.layers.convert import Rule, convert
from plq.runtime.executor import plan
from plq.runtime.lowering import lower

SHAPE, STD = (4, 6, 3), (255.0,)
MASK = np.arange(6) < 4


def dense(x, features=4, seed=0):
    """Weights that nobody learned."""
    return x @ np.random.default_rng(seed).normal(0, 1, (x.shape[-1], features)).astype(np.float32)


def attention(x):
    x = x.reshape(len(x), -1, 3)
    q, k, v = jnp.split(dense(x, 6), 3, -1)
    scores = jnp.where(np.tri(24, dtype=bool), q @ k.transpose(0, 2, 1), -jnp.inf)
    return jax.nn.softmax(scores) @ v


def scanned(x):
    weights = jnp.asarray(np.random.default_rng(1).normal(0, 0.5, (3, 3, 3)).astype(np.float32))

    def layer(x, w):
        y = jax.nn.relu(x @ w)
        return y, y.mean((1, 2))

    y, means = lax.scan(layer, x, weights)
    return jnp.concatenate([y.mean((1, 2)), means.sum(0)], -1)


FRAGMENTS = {
    "glu": lambda x: nn.glu(dense(x)),
    "stack": lambda x: jnp.stack([x, x * 2, jnp.ones_like(x)], 2),
    "unstack": lambda x: sum(jnp.unstack(x, axis=2)),
    "tile and repeat": lambda x: jnp.tile(x, (1, 2, 1, 3)) + jnp.repeat(jnp.repeat(x, 2, 1), 3, 3),
    "variance": lambda x: (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 0.1),
    "logsumexp": lambda x: jax.nn.logsumexp(dense(x), -1),
    "masked": lambda x: jax.nn.softmax(jnp.where(MASK[:, None], x, -jnp.inf), 2),
    "attention": attention,
    "scan": scanned,
    "loop": lambda x: lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y * 1.5), x),
    "constant branch": lambda x: lax.cond(True, lambda y: y * 2, lambda y: y, x),
    "one number per image": lambda x: 2 * dense(x.reshape(len(x), -1), 1)[:, 0] + x.sum((1, 2, 3)),
    "counting": lambda x: (x > 0.5).sum((1, 2)) * 0.5 + jnp.where(x > 0.3, 1, 0).mean((1, 2)),
    "truth": lambda x: jnp.where((x.astype(bool) & ~(x > 0.5)) | (x > 0.9), x, -x),
    "any and all": lambda x: jnp.any(x > 0.953, -1) + 2.0 * jnp.all(x > 0.207, -1),
    "sequence first": lambda x: jax.nn.relu(dense(x[:, 0].transpose(1, 0, 2)) + 0.1).transpose(1, 0, 2),
    "infinite inside": lambda x: jnp.where(MASK[:, None], 0.5, jnp.log(nn.relu(x - 0.5))).clip(-5, 5),
    "pool of padding": lambda x: nn.max_pool(
        jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf), (3, 3), (2, 2)
    ),
    "reflected": lambda x: jnp.pad(x, ((0, 0), (2, 1), (1, 2), (0, 0)), mode="reflect"),
    "shuffled": lambda x: (
        x.reshape(len(x), 2, 2, 6, 3).transpose(0, 1, 3, 2, 4).reshape(len(x), 2, 6, 6)[:, ::-1, 1:5:2]
    ),
    "einsum": lambda x: jnp.einsum("bhwc,cdh->dbw", x, np.ones((3, 2, 4), np.float32)).transpose(1, 0, 2),
    "powers": lambda x: x**3 + 2.0**x + (x + 0.5) ** 1.5 + 1 / (x + 1) ** 2,
    "functions": lambda x: jnp.sin(x) + jnp.expm1(x) + jnp.log1p(x) + lax.rsqrt(x + 1) + lax.erf(x) + jnp.sign(x - 0.5),
    "rounding": lambda x: jnp.round(x * 7.3) + jnp.floor(x * 3.3) - jnp.ceil(x * 2.2),
    "resized": lambda x: jax.image.resize(x, (len(x), 7, 5, 3), "cubic"),
    "least of windows": lambda x: -nn.max_pool(-x, (2, 3), (1, 2)) + nn.avg_pool(x, (2, 3), (1, 2)),
}  # fmt: skip


class Fragment(nn.Module):
    function: object

    def __call__(self, x):
        return self.function(x)


def images(count=3):
    return np.random.default_rng(0).integers(1, 255, (count, *SHAPE), np.uint8)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_everything_computes_the_same(name):
    function, pixels = FRAGMENTS[name], images()
    wanted = np.asarray(function(jnp.asarray(pixels, jnp.float32) / 255))
    graph = lower(Fragment(function), {}, SHAPE, (0.0,), STD)
    wanted = wanted.reshape(len(pixels), *graph.output_shape)
    runner = plan(graph)
    scale = np.abs(wanted).max()
    close = lambda found: np.testing.assert_allclose(found, wanted, atol=2e-6 * scale, rtol=2e-6)
    close(jax.jit(runner.logits)(runner.arrays, pixels))
    if "sin" not in str(graph.nodes):
        close(Reference(graph).logits(pixels))
    made = QDQ(graph, False)
    close(onnx_session(made.model("batch", {}).SerializeToString()).run(["logits"], feed(made, pixels))[0])


class OfNoImage(nn.Module):
    """Layers on variables alone, beside one on the images."""

    @nn.compact
    def __call__(self, x):
        table = self.param("table", nn.initializers.normal(), (6, 3))
        table = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(3)(table)))
        return nn.Dense(5)((x + table).mean((1, 2)))


def test_a_layer_on_variables_alone_is_a_constant():
    import plq

    network = plq.convert(OfNoImage(), plq.Rule("*", 2, 2))
    variables = network.init(jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
    frozen = plq.freeze(network, variables, image_shape=SHAPE, mean=(0.0,), std=STD)
    wanted = network.apply(variables, images().astype(np.float32) / 255)
    np.testing.assert_allclose(frozen(images()), wanted, atol=1e-5)


REFUSED = {
    "images .* conversion from float32 to bfloat16": lambda x: x.astype(jnp.bfloat16),
    "found a precision of 7 bits, allowed that of float32": lambda x: lax.reduce_precision(x, 8, 7),
    "found a division of integers": lambda x: jnp.where(x > 0, 4, 2) // jnp.where(x > 0, 3, 1),
    "found a constant that is no number": lambda x: x + jnp.nan,
    "found the operation sort": lambda x: jnp.sort(x),
    "cannot be traced with these variables [(]KeyError": lambda x: x * {8: 1}[x.shape[1]],
    "cannot be traced with these variables": lambda x: x[x > 0.5],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_node_is_one_line(message):
    with pytest.raises(UserError, match=message.removeprefix("images .* ")) as caught:
        lower(Fragment(REFUSED[message]), {}, SHAPE, (0.0,), STD)
    assert "\n" not in str(caught.value)


class Mapped(nn.Module):
    """A layer that JAX maps over the images."""

    @nn.compact
    def __call__(self, x):
        layer = nn.vmap(nn.Dense, variable_axes={"params": None}, split_rngs={"params": False})
        return layer(5)(x.mean((1, 2)))


def test_a_mapped_layer_is_one_line():
    network = convert(Mapped(), Rule("*", 2, 2))
    variables = network.init(jax.random.key(0), np.zeros((2, *SHAPE), np.float32))
    with pytest.raises(UserError, match="found jax.vmap or nn.vmap around a low-precision layer") as caught:
        lower(network, variables, SHAPE, (0.0,), STD)
    assert "\n" not in str(caught.value)
