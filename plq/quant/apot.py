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
from plq.quant.learned import best_clip, gradient_scale, learned_grid, positive, times_slope
from plq.quant.means import at_least_tiny, mean, root_mean_square
from plq.quant.quantized import Quantized, in_units, nearest_codes, product, quantized

# By bits: each level is a sum of one term from every group, as in the authors' code; in units of the smallest power.
TERMS = {
    1: ((0, 1),),
    2: ((0, 1, 2, 4),),
    3: ((0, 1, 4, 8), (0, 2)),
    4: ((0, 2, 8, 32), (0, 1, 4, 16)),
    5: ((0, 2, 16, 64), (0, 1, 8, 32), (0, 4)),
}


def magnitudes(bits: int) -> tuple[float, ...]:
    """The 2**bits levels without a sign, rising: 2 bits 0, 1, 2, 4; 3 bits 0, 1, 2, 3, 4, 6, 8, 10."""
    return tuple(sorted(float(sum(terms)) for terms in itertools.product(*TERMS[bits])))


def on_levels(x: Array, alpha: Array | np.float32, levels: tuple[float, ...]) -> Quantized:
    """x on the levels, whose largest stands for alpha."""
    unit = product(alpha, np.float32(1 / levels[-1]))
    return quantized(nearest_codes(in_units(x, unit), levels), unit, 0.0, levels)


def clip_surrogate(x: Array, v: Array, alpha: Array, levels: tuple[float, ...], values: float) -> Array:
    """The paper's reparameterized clipping, v = x / alpha: dvalue/dalpha = level(v) - v inside, the sign outside.

    alpha's gradient is also taken times 1 / sqrt(values * levels above 0), as LSQ does; the authors give alpha a
    learning rate of its own instead.
    """
    top = np.float32(levels[-1])
    nearest = lambda v: product(on_levels(v * top, top, levels).dequantize(), 1 / top)
    factor = gradient_scale(values, sum(level > 0 for level in levels))
    return learned_grid(x, v, alpha, (levels[0] / levels[-1], 1), nearest, factor)


@dataclasses.dataclass(frozen=True)
class APoT(WeightQuantizer):
    """(W - mean) / std on 2**k - 1 levels in [-alpha, alpha], alpha learned: signed sums of powers of two.

    2 bits: -1, 0, 1. 3 bits: 0, 1, 2, 4 quarters of alpha, with either sign. The quantized kernel is that of the
    normalized one, as in the paper: a batch norm is expected behind it. No gradient through mean and std. alpha is
    one per layer and starts where the squared error is least (the authors: at 3). Weights beyond alpha
    get no gradient (in the authors' code for CIFAR-10 they do).
    """

    legal_bits: ClassVar[tuple[int, ...]] = (2, 3, 4, 5)
    scale_names: ClassVar[tuple[str, ...]] = ("alpha",)

    @property
    def levels(self) -> tuple[float, ...]:
        above_zero = magnitudes(self.bits - 1)[1:]
        return (*(-level for level in above_zero[::-1]), 0.0, *above_zero)

    def initial_scales(self, kernel: Array) -> Scales:
        center, std = self.statistics(kernel)
        alpha = best_clip(in_units(kernel - center, std), lambda v, clip: on_levels(v, clip, self.levels).dequantize())
        return {"alpha": alpha.reshape((1,) * kernel.ndim)}

    def statistics(self, kernel: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, one element each with the kernel's rank; for a constant kernel 1."""
        center = product(mean(kernel), np.float32(1))
        std = root_mean_square(kernel - center)
        return center, at_least_tiny(std)

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel, alpha = kernel.astype(jnp.float32), positive((scales or {})["alpha"])
        center, std = self.statistics(kernel) if statistics is None else statistics
        found = on_levels(kernel - center, product(alpha, std), self.levels)
        return dataclasses.replace(found, scale=product(alpha, np.float32(1 / self.levels[-1])))

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        (center, std), alpha = jax.lax.stop_gradient(statistics), positive(scales["alpha"])
        v = in_units(kernel - center, product(alpha, std))
        return clip_surrogate(times_slope(kernel, 1 / std), v, alpha, self.levels, kernel.size)


@dataclasses.dataclass(frozen=True)
class APoTActivation(ActivationQuantizer):
    """x on 2**k levels in [0, alpha], alpha learned, starting where the squared error on the data is least."""

    legal_bits: ClassVar[tuple[int, ...]] = (*TERMS, FLOAT_BITS)
    scale_names: ClassVar[tuple[str, ...]] = ("alpha",)

    def initial_scales(self) -> Scales:
        return {"alpha": jnp.float32(3.0)}

    def calibrate_scales(self, x: Array) -> Scales:
        levels = magnitudes(self.bits)
        return {"alpha": best_clip(jax.nn.relu(x), lambda v, clip: on_levels(v, clip, levels).dequantize())}

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        return on_levels(x.astype(jnp.float32), positive((scales or {})["alpha"]), magnitudes(self.bits))

    def surrogate(self, x: Array, scales: Scales) -> Array:
        alpha = positive(scales["alpha"])
        return clip_surrogate(x, in_units(x, alpha), alpha, magnitudes(self.bits), math.prod(x.shape[1:]))
