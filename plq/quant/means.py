"""Means over a kernel, with the same bits in training, in serving and in the codes."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.quantized import in_units, product

TINY = 1e-30  # what is not above it is taken for 0: its inverse is near infinity, or denormal numbers are 0 here


def ordered_sum(rows: Array) -> Array:
    """Sum over axis 0, [n, m] -> [m], by eighths onto each other: in an order that no compiler changes."""
    while rows.shape[0] > 1:
        rows = jnp.pad(rows, ((0, -rows.shape[0] % 8), (0, 0)))
        parts = rows.reshape(8, -1, rows.shape[1])
        for _ in range(3):
            parts = parts[0::2] + parts[1::2]
        rows = parts[0]
    return rows[0]


def mean(kernel: Array, per_channel: bool = False) -> Array:
    """Mean over the kernel, or over all but its last axis; float32 with the kernel's rank.

    A product with 1 / n, because a compiler makes one of a quotient, but not everywhere.
    """
    total = ordered_sum(kernel.reshape(-1, kernel.shape[-1]))
    total = total if per_channel else ordered_sum(total[:, None])
    return (total * np.float32(total.size / kernel.size)).reshape((1,) * (kernel.ndim - 1) + (-1,))


def mean_magnitude(kernel: Array, per_channel: bool = False) -> Array:
    """E = mean |W|, as `mean`."""
    return mean(jnp.abs(kernel), per_channel)


def root_mean_square(kernel: Array) -> Array:
    """sqrt(mean W^2) over the kernel, one element with its rank; in units of max|W|, so that no square overflows."""
    largest = jnp.max(jnp.abs(kernel), keepdims=True)
    unit = in_units(kernel, at_least_tiny(largest))
    return product(largest, jnp.sqrt(mean(product(unit, unit))))


def at_least_tiny(scale: Array) -> Array:
    """The scale, or 1 where it is too small to divide by, as for an all-zero kernel."""
    return jnp.where(scale <= TINY, 1.0, scale)
