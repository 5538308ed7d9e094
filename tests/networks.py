"""Small networks and real images that several tests share."""

import jax
import jax.numpy as jnp
import numpy as np

from plq.data.augment import normalize
from plq.data.digits import load_digits
from plq.data.images import resize
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture

QUANTIZERS = [  # of weights and of activations, with their bits; each of either kind once at least
    ("dorefa", 1, "clip", 2, {}),
    ("dorefa", 4, "lsq_plus", 3, {}),
    ("xnor", 1, "abs", 2, {}),
    ("syq", 1, "clip", 3, {"granularity": "row"}),
    ("syq", 2, "lsq", 2, {"eta": 0.3}),
    ("lsq", 2, "lsq", 4, {"granularity": "channel", "first_bits": 8, "last_bits": 8}),
    ("lsq", 1, "pact", 1, {}),
    ("apot", 3, "apot", 3, {"first_bits": 8, "last_bits": 8}),
    ("sawb", 2, "pact", 4, {"first_bits": 2, "last_bits": 4}),
]
IMAGE_SHAPE = (40, 40, 1)


def digit_images(count: int) -> np.ndarray:
    """Real digits, uint8 [count, 40, 40, 1]."""
    return np.stack([resize(image, (40, 40)) for image in load_digits()[0][-count:]])


def architecture(weights="dorefa", weight_bits=1, activation_bits=2, width=0.125, **precision) -> Architecture:
    fields = {"weights": weights, "weight_bits": weight_bits, "activation_bits": activation_bits, **precision}
    return Architecture("svhn", 10, QuantConfig(**fields), width, dropout=0.0)


def used_variables(network, images, seed=0):
    """Variables as if trained: no bias or scale at its initial value, batch statistics those of the images."""
    x = jnp.asarray(images, jnp.float32) / 256
    variables = jax.jit(network.init)(jax.random.key(seed, impl="rbg"), x[:1])
    generator = np.random.default_rng(seed)
    shifted = jax.tree.map(lambda leaf: leaf + 0.1 * generator.random(leaf.shape, np.float32), variables)
    update = jax.jit(lambda v: network.apply(v, x, train=True, mutable=["batch_stats", "ancillary_stats"])[1])
    for _ in range(40):
        shifted = {**shifted, **update(shifted)}
    return shifted


def logits(network, variables, images, batch=250) -> np.ndarray:
    apply = jax.jit(lambda v, x: network.apply(v, normalize(x, (0.0,), (256.0,))))
    return np.concatenate([apply(variables, images[i : i + batch]) for i in range(0, len(images), batch)])
