"""APoT: levels that are sums of powers of two (Li, Dong, Wang: Additive Powers-of-Two, arXiv 1909.13144)."""

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.base import FLOAT_BITS, ActivationQuantizer, Scales, WeightQuantizer
from plq.quant.binary import mean_magnitude, ordered_sum
from plq.quant.learned import best_clip, positive, scaled_gradient
from plq.quant.quantized import Quantized, nearest_codes, product, quantized, straight_through

# By bits: each level is a sum of one term from every group. In integers: the unit is the smallest power in use.
TERMS = {1: ((0, 1),), 2: ((0, 1, 2, 4),), 3: ((0, 1, 4, 8), (0, 2)), 4: ((0, 2, 8, 32), (0, 1, 4, 16))}


def magnitudes(bits: int) -> tuple[float, ...]:
    """The 2**bits levels without a sign, rising: 2 bits 0, 1, 2, 4; 3 bits 0, 1, 2, 3, 4, 6, 8, 10."""
    return tuple(sorted(float(sum(terms)) for terms in itertools.product(*TERMS[bits])))


def on_levels(x: Array, alpha: Array, levels: tuple[float, ...]) -> Quantized:
    """x on the levels, whose largest stands for alpha."""
    top = levels[-1]
    return quantized(nearest_codes(x / alpha * top, levels), alpha * np.float32(1 / top), 0.0, levels)


def clip_surrogate(x: Array, alpha: Array, levels: tuple[float, ...], count: float) -> Array:
    """The reparameterized clipping (eq. 6): to alpha level(x/alpha) - x/alpha inside, the sign outside.

    alpha's gradient is also taken times 1 / sqrt(count * levels), as LSQ does; the paper leaves it as it is.
    """
    alpha = scaled_gradient(alpha, 1 / math.sqrt(count * (len(levels) - 1)))
    v = jnp.clip(x / alpha, levels[0] / levels[-1], 1)
    found = on_levels(jax.lax.stop_gradient(x), jax.lax.stop_gradient(alpha), levels)
    unit = dataclasses.replace(found, scale=jnp.float32(1 / levels[-1]))
    return straight_through(v, unit.dequantize()) * alpha


@dataclasses.dataclass(frozen=True)
class APoT(WeightQuantizer):
    """(W - mean) / std on 2**k - 1 levels in [-alpha, alpha], alpha learned: signed sums of powers of two.

    2 bits: -1, 0, 1. 3 bits: 0, 1, 2, 4 quarters of alpha, with either sign. The quantized kernel is that of the
    normalized one, as in the paper: a batch norm is expected behind it. No gradient through mean and std. alpha
    starts where the squared error is least (the paper: at 3), per layer.
    """

    legal_bits: ClassVar[tuple[int, ...]] = (2, 3, 4, 5)
    scale_names: ClassVar[tuple[str, ...]] = ("alpha",)

    @property
    def levels(self) -> tuple[float, ...]:
        positive_levels = magnitudes(self.bits - 1)
        return (*(-level for level in positive_levels[:0:-1]), *positive_levels)

    def initial_scales(self, kernel: Array) -> Scales:
        normal = self._normalized(kernel, self.statistics(kernel))
        alpha = best_clip(normal, lambda v, clip: on_levels(v, clip, self.levels).dequantize())
        return {"alpha": alpha.reshape((1,) * kernel.ndim)}

    def statistics(self, kernel: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, with the kernel's rank and one element; 1 for a constant kernel."""
        mean = product(ordered_sum(kernel.reshape(-1, 1)), np.float32(1 / kernel.size))
        mean = mean.reshape((1,) * kernel.ndim)
        std = jnp.sqrt(mean_magnitude(product(kernel - mean, kernel - mean)))
        return mean, jnp.where(std > 0, std, 1.0)

    def _normalized(self, kernel: Array, statistics: tuple[Array, Array]) -> Array:
        mean, std = jax.lax.stop_gradient(statistics)
        return (kernel - mean) / std

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel = kernel.astype(jnp.float32)
        normal = self._normalized(kernel, self.statistics(kernel) if statistics is None else statistics)
        return on_levels(normal, positive((scales or {})["alpha"]), self.levels)

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        normal = self._normalized(kernel, statistics)
        return clip_surrogate(normal, positive(scales["alpha"]), self.levels, kernel.size)


@dataclasses.dataclass(frozen=True)
class APoTActivation(ActivationQuantizer):
    """x on 2**k levels in [0, alpha], alpha learned, starting where the squared error on the data is least."""

    legal_bits: ClassVar[tuple[int, ...]] = (*TERMS, FLOAT_BITS)
    scale_names: ClassVar[tuple[str, ...]] = ("alpha",)

    def initial_scales(self) -> Scales:
        return {"alpha": jnp.float32(3.0)}

    def scales_of(self, x: Array) -> Scales:
        levels = magnitudes(self.bits)
        return {"alpha": best_clip(jax.nn.relu(x), lambda v, clip: on_levels(v, clip, levels).dequantize())}

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        return on_levels(x.astype(jnp.float32), positive((scales or {})["alpha"]), magnitudes(self.bits))

    def surrogate(self, x: Array, scales: Scales) -> Array:
        features = float(np.prod(x.shape[1:]))
        return clip_surrogate(x, positive(scales["alpha"]), magnitudes(self.bits), features)
