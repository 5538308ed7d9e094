"""Weights of one sign bit each, at a magnitude that the caller chooses."""

import jax.numpy as jnp
from jax import Array

from plq.quant.quantized import Quantized, quantized


def mean_magnitude(kernel: Array, axes: tuple[int, ...] | None = None) -> Array:
    """E = mean |W| over ``axes`` (all of them by default), kept as axes of length 1."""
    return jnp.mean(jnp.abs(kernel), axis=axes, keepdims=True)


def binarize(kernel: Array, magnitude: Array) -> Quantized:
    """sign(W) * magnitude, as codes {0, 1}. A weight of exactly 0 counts as positive.

    | W      | code | value      |
    |--------|------|------------|
    | W < 0  | 0    | -magnitude |
    | W >= 0 | 1    | +magnitude |
    """
    return quantized(kernel >= 0, 2 * magnitude, -0.5)
