"""Weights of one sign bit each, at a magnitude that the caller chooses."""

from jax import Array

from plq.quant.quantized import Quantized, quantized


def binarize(kernel: Array, magnitude: Array) -> Quantized:
    """sign(W) * magnitude, as codes {0, 1}. A weight of exactly 0 counts as positive.

    | W      | code | value      |
    |--------|------|------------|
    | W < 0  | 0    | -magnitude |
    | W >= 0 | 1    | +magnitude |
    """
    return quantized(kernel >= 0, 2 * magnitude, -0.5)
