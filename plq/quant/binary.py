"""Weights of one sign bit each, at a magnitude that the caller chooses."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.quantized import Quantized, quantized


def mean_magnitude(kernel: Array, per_channel: bool = False) -> Array:
    """E = mean |W| over the kernel, or over all but its last axis; float32 with the kernel's rank.

    Has the same bits in training, in serving and in the codes: see `ordered_sum`; and the mean is a product with
    1 / n because a compiler makes one of a quotient, but not everywhere.
    """
    total = ordered_sum(jnp.abs(kernel).reshape(-1, kernel.shape[-1]))
    total = total if per_channel else ordered_sum(total[:, None])
    return (total * np.float32(total.size / kernel.size)).reshape((1,) * (kernel.ndim - 1) + (-1,))


def ordered_sum(rows: Array) -> Array:
    """Sum over axis 0, [n, m] -> [m], by eighths onto each other: in an order that no compiler changes."""
    while rows.shape[0] > 1:
        rows = jnp.pad(rows, ((0, -rows.shape[0] % 8), (0, 0)))
        parts = rows.reshape(8, -1, rows.shape[1])
        for _ in range(3):
            parts = parts[0::2] + parts[1::2]
        rows = parts[0]
    return rows[0]


def binarize(kernel: Array, magnitude: Array) -> Quantized:
    """sign(W) * magnitude, as codes {0, 1}. A weight of exactly 0 counts as positive.

    | W      | code | value      |
    |--------|------|------------|
    | W < 0  | 0    | -magnitude |
    | W >= 0 | 1    | +magnitude |
    """
    return quantized(kernel >= 0, 2 * magnitude, -0.5)
