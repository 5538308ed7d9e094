"""Uniform quantization of activations on [0, 1], with the two clippings of EXP-Net's networks."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.base import FLOAT_BITS
from plq.quant.quantized import Quantized, quantized, straight_through


def clip_abs(x: Array) -> Array:
    """min(1, |x|): the SVHN network."""
    return jnp.minimum(1.0, jnp.abs(x))


def clip_relu(x: Array) -> Array:
    """clip(x, 0, 1): AlexNet."""
    return jnp.clip(x, 0.0, 1.0)


def round_half_up(x: Array) -> Array:
    """floor(x + 1/2)."""
    return jnp.floor(x + 0.5)


@dataclasses.dataclass(frozen=True)
class UniformActivation:
    """A clipping to [0, 1], then ``bits`` bits: codes = round(clip(x) * n), value = codes / n, n = 2**bits - 1.

    | bits | n   | levels          |
    |------|-----|-----------------|
    | 1    | 1   | 0, 1            |
    | 2    | 3   | 0, 1/3, 2/3, 1  |
    | 8    | 255 | 0, 1/255 ... 1  |

    Gradient: that of the clipping as written, identity through the rounding. 32 bits: the clipping alone,
    it is the network's non-linearity.
    """

    bits: int
    clip: Callable[[Array], Array]
    rounding: Callable[[Array], Array]

    def quantize(self, x: Array) -> Quantized:
        """Unsigned codes in the shape of x. Raises ValueError at 32 bits."""
        if self.bits == FLOAT_BITS:
            raise ValueError("activations of 32 bits are not quantized: they have no integer codes")
        levels = 2**self.bits - 1
        return quantized(self.rounding(self.clip(x.astype(jnp.float32)) * levels), np.float32(1 / levels), 0.0)

    def __call__(self, x: Array) -> Array:
        """Fake-quantized x, float32, equal to ``quantize(x).dequantize()`` bit for bit."""
        clipped = self.clip(x.astype(jnp.float32))
        if self.bits == FLOAT_BITS:
            return clipped
        return straight_through(clipped, self.quantize(x).dequantize())


def abs_activation(bits: int) -> UniformActivation:
    """quantize_k(min(1, |x|)), rounding half to even (EXP-Net's SVHN network)."""
    return UniformActivation(bits, clip_abs, jnp.round)


def clip_activation(bits: int) -> UniformActivation:
    """quantize_k(clip(x, 0, 1)), rounding half up (EXP-Net's AlexNet)."""
    return UniformActivation(bits, clip_relu, round_half_up)


def relu_activation(bits: int) -> UniformActivation:
    """max(0, x) without an upper end, for float networks; it cannot be quantized."""
    return UniformActivation(bits, jax.nn.relu, jnp.round)
