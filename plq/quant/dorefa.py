"""DoReFa-Net quantizers of weights and gradients (Zhou et al., arXiv 1606.06160)."""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.checks import integer
from plq.errors import UserError
from plq.quant.base import Scales, WeightQuantizer
from plq.quant.binary import binarize
from plq.quant.learned import times_slope
from plq.quant.means import TINY, at_least_tiny, mean_magnitude
from plq.quant.quantized import Quantized, in_units, product, quantized


@dataclasses.dataclass(frozen=True)
class DoReFa(WeightQuantizer):
    """1 bit: sign(W) * E with E = mean |W| over the kernel. k bits, n = 2**k - 1:

        t = tanh(W) / (2 max|tanh W|) + 1/2
        codes = round(t * n)                  (half to even; W = 0 gives the code 2**(k-1))
        value = 2 * codes / n - 1             (arXiv 1606.06160, eq. 9)

    Gradient at 1 bit: identity, none through E (eq. 7). At k bits: that of 2 t - 1 as written, the
    maximum included. An all-zero kernel has maximum 0, taken as 1.
    """

    legal_bits: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)

    def statistics(self, kernel: Array) -> Array:
        """E (1 bit) or max|tanh W| (k bits), with the kernel's rank and one element."""
        if self.bits == 1:
            return mean_magnitude(kernel)
        largest = jnp.max(jnp.abs(jnp.tanh(kernel)), keepdims=True)
        return at_least_tiny(largest)

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel = kernel.astype(jnp.float32)
        statistics = self.statistics(kernel) if statistics is None else statistics
        if self.bits == 1:
            return binarize(kernel, statistics)
        levels = 2**self.bits - 1
        unit = jnp.clip(product(jnp.tanh(kernel), 1 / (2 * statistics)) + 0.5, 0, 1)
        return quantized(jnp.round(unit * levels), np.float32(2 / levels), -levels / 2)

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        if self.bits == 1:
            return kernel
        unit = jax.lax.stop_gradient(in_units(jnp.tanh(kernel), statistics))
        inverse = jax.lax.stop_gradient(1 / statistics)
        return times_slope(jnp.tanh(kernel), inverse) - times_slope(statistics, product(unit, inverse))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def quantize_gradient(x: Array, key: Array, bits: int) -> Array:
    """Identity forward; backward, the gradient of each example quantized to ``bits`` bits.

    For a signal g of one example (axis 0), m = max|g| and n = 2**bits - 1:

        r = g / (2 m) + 1/2 + u,   u ~ Uniform(-1/(2n), 1/(2n))
        gradient = 2 m * (round(clip(r, 0, 1) * n) / n - 1/2)        (arXiv 1606.06160, eq. 12)

    An example whose m is 0, or too small to divide by, keeps a gradient of exactly 0. One that holds nan or infinity
    gets nan everywhere, so that training stops with the step's number; the other examples do not change.

    Args:
        x: any shape, batch first. key: random key of this layer and step. bits: 1 to 31, else UserError.
    """
    del key
    if not 1 <= integer("quant.gradient_bits", bits) <= 31:
        raise UserError(f"quant.gradient_bits={bits}: allowed 1 to 31")
    return x


def _gradient_forward(x, key, bits):
    return quantize_gradient(x, key, bits), key


def _gradient_backward(bits, key, gradient):
    g, levels = jnp.asarray(gradient, jnp.float32), 2**bits - 1
    largest = jnp.max(jnp.abs(g), axis=tuple(range(1, g.ndim)), keepdims=True, initial=0.0)
    noise = jax.random.uniform(key, g.shape, g.dtype, -0.5 / levels, 0.5 / levels)
    unit = jnp.clip(g / at_least_tiny(largest) * 0.5 + 0.5 + noise, 0, 1)
    found = 2 * (jnp.round(unit * levels) / levels - 0.5) * largest
    found = jnp.where(jnp.isfinite(largest), found, jnp.nan)
    found = jnp.where(largest <= TINY, 0.0, found)
    return found.astype(gradient.dtype), np.zeros(key.shape, jax.dtypes.float0)


quantize_gradient.defvjp(_gradient_forward, _gradient_backward)
