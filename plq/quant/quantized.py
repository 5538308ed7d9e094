"""Integer codes with their scale, and the straight-through estimator that trains through them."""

import dataclasses
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


@partial(jax.tree_util.register_dataclass, data_fields=("codes", "scale", "offset"), meta_fields=("levels",))
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A tensor of `bits`-bit integers and the map back to real numbers.

    Invariants:
        codes   uint8, in [0, 2**bits), any shape
        scale   float32, broadcastable to codes
        offset  float32, broadcastable to codes, a multiple of 1/2
        levels  None, or rising integers as Python floats, one per code: a non-uniform grid; static
        value = (codes + offset) * scale, or (levels[codes] + offset) * scale

    The sum is exact in float32 and the product is the only rounding, so a compiler that contracts a
    multiplication with an addition has nothing to contract here: the value has the same bits everywhere.
    """

    codes: Array
    scale: Array
    offset: Array
    levels: tuple[float, ...] | None = None

    def dequantize(self) -> Array:
        """The real values, float32, in the shape of ``codes``."""
        return (self._level() + self.offset) * self.scale

    def _level(self) -> Array:
        if self.levels is None:
            return self.codes.astype(jnp.float32)
        level = jnp.full(self.codes.shape, self.levels[0], jnp.float32)
        for code in range(1, len(self.levels)):  # sums of integers: exact, and faster than a look-up
            level += jnp.where(self.codes >= code, self.levels[code] - self.levels[code - 1], 0.0)
        return level


def quantized(codes: Array, scale, offset, levels: tuple[float, ...] | None = None) -> Quantized:
    """Build a `Quantized` in its documented dtypes from codes held in any numeric type."""
    return Quantized(codes.astype(jnp.uint8), jnp.float32(scale), jnp.float32(offset), levels)


def nearest_codes(x: Array, levels: tuple[float, ...]) -> Array:
    """Index of the level nearest to each x (in units of the levels), uint8; halfway goes to the upper one."""
    codes = jnp.zeros(x.shape, jnp.uint8)
    for lower, upper in itertools.pairwise(levels):
        codes += (x >= (lower + upper) / 2).astype(jnp.uint8)
    return codes


@jax.custom_jvp
def straight_through(surrogate: Array, forward: Array) -> Array:
    """STE: the value of ``forward`` to the last bit, the derivative of ``surrogate``."""
    del surrogate
    return forward


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return primals[1], tangents[0]


def product(a: Any, b: Any) -> Array:
    """a * b to 21 bits of mantissa: a rounding that keeps a compiler from fusing it into a following sum.

    A fused multiply-add has other last bits than the two operations, and which products get fused depends on the
    program around them; a statistic of a kernel must be the same in training and in serving.
    """
    return lax.reduce_precision(a * b, exponent_bits=8, mantissa_bits=21)


def in_units(x: Array, scale: Any) -> Array:
    """x / scale, as a product: a compiler makes one of a division by one number, but not everywhere."""
    return x * (1 / scale)
