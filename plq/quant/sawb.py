"""SAWB: a weight clip from two statistics of the kernel (Choi et al., arXiv 1807.06964)."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.base import Scales, WeightQuantizer
from plq.quant.means import at_least_tiny, mean_magnitude, root_mean_square
from plq.quant.quantized import Quantized, in_units, product, quantized

# c1, c2 per number of bits, a fit of the clip with least squared error over several kinds of distributions. The paper
# gives those of 2 bits to two digits; these are from the code that its authors' group released.
COEFFICIENTS = {2: (3.12, -2.064), 3: (7.509, -6.892), 4: (12.68, -12.80), 5: (17.74, -18.64)}


@dataclasses.dataclass(frozen=True)
class SAWB(WeightQuantizer):
    """2**k levels, evenly from -alpha to alpha, alpha = c1 sqrt(mean W^2) + c2 mean|W| (c2 < 0). n = 2**k - 1:

        codes = round((clip(W / alpha, -1, 1) + 1) * n / 2),   value = (codes - n / 2) * 2 alpha / n

    2 bits: -alpha, -alpha / 3, alpha / 3, alpha. Gradient: identity, for weights beyond alpha too; none through
    alpha. Departure: alpha is at least mean|W| (the fit is negative for kernels of one magnitude from 4 bits on), and
    1 for an all-zero kernel.
    """

    legal_bits: ClassVar[tuple[int, ...]] = tuple(COEFFICIENTS)

    def statistics(self, kernel: Array) -> Array:
        """alpha, with the kernel's rank and one element."""
        first, second = (np.float32(c) for c in COEFFICIENTS[self.bits])
        mean = mean_magnitude(kernel)
        alpha = jnp.maximum(product(first, root_mean_square(kernel)) + product(second, mean), mean)
        return at_least_tiny(alpha)

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel = kernel.astype(jnp.float32)
        alpha = self.statistics(kernel) if statistics is None else statistics
        levels = 2**self.bits - 1
        codes = jnp.round((jnp.clip(in_units(kernel, alpha), -1, 1) + 1) * np.float32(levels / 2))
        return quantized(codes, alpha * np.float32(2 / levels), -levels / 2)

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        return kernel
