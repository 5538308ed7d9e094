"""XNOR-Net weights (Rastegari et al., arXiv 1603.05279), without the scaling of the input."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from plq.quant.base import Scales, WeightQuantizer
from plq.quant.binary import binarize
from plq.quant.means import mean_magnitude
from plq.quant.quantized import Quantized


@dataclasses.dataclass(frozen=True)
class XNOR(WeightQuantizer):
    """sign(W) * E with E = mean |W| per output channel. Gradient: identity, none through E."""

    legal_bits: ClassVar[tuple[int, ...]] = (1,)

    def statistics(self, kernel: Array) -> Array:
        """E, shape [1, ..., 1, out]."""
        return mean_magnitude(kernel, per_channel=True)

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel = kernel.astype(jnp.float32)
        return binarize(kernel, self.statistics(kernel) if statistics is None else statistics)

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        return kernel
