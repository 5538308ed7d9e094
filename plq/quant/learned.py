"""What quantizers with learned scales share: a guard, a gradient scale, and a start value from data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.quantized import straight_through

SMALLEST = 1e-6
SHRINKS = np.geomspace(0.02, 1.0, 60).astype(np.float32)
SAMPLES = 2**16


def positive(scale: Array) -> Array:
    """|scale|, at least `SMALLEST`: a learned scale that an update takes across 0 goes on on the other side.

    The gradient is that of |scale|, also below `SMALLEST`, so that no scale is ever stuck.
    """
    return straight_through(jnp.abs(scale), jnp.maximum(jnp.abs(scale), SMALLEST))


def scaled_gradient(x: Array, factor: float) -> Array:
    """x, with its gradient times ``factor``. To one rounding: for surrogates, whose value is not used."""
    return x * factor + jax.lax.stop_gradient(x * (1 - factor))


def best_clip(x: Array, reconstruct: Callable[[Array, Array], Array]) -> Array:
    """The clip in (0, max|x|] for which ``reconstruct(x, clip)`` has the least squared error; 1 if x is all 0.

    Args:
        x: any shape; of more than 65,536 values every n-th is looked at. Returns a float32 scalar.
    """
    flat = x.reshape(-1).astype(jnp.float32)
    flat = flat[:: -(-flat.size // SAMPLES)]
    clips = jnp.max(jnp.abs(flat)) * SHRINKS
    errors = jax.lax.map(lambda clip: jnp.mean((flat - reconstruct(flat, clip)) ** 2), clips)
    best = clips[jnp.argmin(errors)]
    return jnp.where(best > 0, best, 1.0)
