"""Integer codes with their scale, and the straight-through estimator that trains through them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Quantized(NamedTuple):
    """A tensor of `bits`-bit integers and the affine map back to real numbers.

    Invariants:
        codes   uint8, in [0, 2**bits), any shape
        scale   float32, broadcastable to codes
        offset  float32, broadcastable to codes, a multiple of 1/2
        value = (codes + offset) * scale

    The sum is exact in float32 and the product is the only rounding, so a compiler that contracts a
    multiplication with an addition has nothing to contract here: the value has the same bits everywhere.
    """

    codes: Array
    scale: Array
    offset: Array

    def dequantize(self) -> Array:
        """The real values, float32, in the shape of ``codes``."""
        return (self.codes.astype(jnp.float32) + self.offset) * self.scale


def quantized(codes: Array, scale, offset) -> Quantized:
    """Build a `Quantized` in its documented dtypes from codes held in any numeric type."""
    return Quantized(codes.astype(jnp.uint8), jnp.float32(scale), jnp.float32(offset))


@jax.custom_jvp
def straight_through(surrogate: Array, forward: Array) -> Array:
    """STE: the value of ``forward`` to the last bit, the derivative of ``surrogate``."""
    del surrogate
    return forward


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return primals[1], tangents[0]
