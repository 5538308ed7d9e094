"""Cross-entropy, its label smoothing, and the counts that accuracy is made of."""

import jax
import jax.numpy as jnp
import optax
from jax import Array


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Loss of each example in nats, float32 [batch]. logits [batch, classes], labels int [batch]."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def correct(logits: Array, labels: Array) -> Array:
    """1.0 for each example whose largest logit is its label's, float32 [batch]."""
    return (jax.lax.argmax(logits, logits.ndim - 1, jnp.int32) == labels.astype(jnp.int32)).astype(jnp.float32)
