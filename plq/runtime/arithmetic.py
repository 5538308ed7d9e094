"""What activation nodes compute, in JAX: from real numbers to integers on their grid."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.runtime.nodes import Activation

NONLINEARITY: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "clip": lambda x: jnp.clip(x, 0.0, 1.0),
    "abs": jnp.abs,
    "abs_clip": lambda x: jnp.minimum(1.0, jnp.abs(x)),
    "hard_swish": lambda x: x * (jnp.clip(x + 3, 0, 6) * np.float32(1 / 6)),
}
ROUNDING: dict[str, Callable[[Array], Array]] = {"half_even": jnp.round, "half_up": lambda x: jnp.floor(x + 0.5)}


def before_rounding(node: Activation, x: Array, divisor: Array, factor: Array) -> Array:
    """v = h(x) / divisor * factor, float32; divisor and factor are those of the node, as arrays.

    Arrays, because a compiler may turn a division by a constant into a product with its reciprocal.
    """
    return NONLINEARITY[node.nonlinearity](x) / divisor * factor


def on_grid(node: Activation, v: Array) -> Array:
    """level + offset, as float32, of values before rounding. The node has a grid."""
    grid = node.grid
    assert grid is not None
    if grid.levels is None:
        return jnp.clip(ROUNDING[node.rounding](v), grid.offset, grid.offset + grid.codes - 1)
    integers = grid.integers
    level = jnp.full(v.shape, integers[0], jnp.float32)
    for low, high in itertools.pairwise(integers):
        level += jnp.where(v + grid.offset >= np.float32((low + high) / 2), np.float32(high - low), np.float32(0))
    return level
