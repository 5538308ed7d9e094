"""SYQ: symmetric binary and ternary weights with learned scales (Faraone et al., CVPR 2018)."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from plq.checks import choice, within
from plq.quant.base import Scales, WeightQuantizer
from plq.quant.quantized import Quantized, quantized, straight_through


@dataclasses.dataclass(frozen=True)
class SYQ(WeightQuantizer):
    """Codes {-1, +1} (1 bit) or {-1, 0, +1} (2 bits, 0 where |W| < eta max|W|) times learned scales.

    One scale per kernel position, per kernel row, or per layer; a dense kernel has one per layer.
    Gradients: identity through the codes, so dL/dW = scale * dL/dQ, and dL/dscale = sum(codes * dL/dQ)
    over the scale's group. eta = 0 makes the ternary quantizer binary.
    """

    granularity: str = "position"
    eta: float = 0.05
    legal_bits: ClassVar[tuple[int, ...]] = (1, 2)
    scale_names: ClassVar[tuple[str, ...]] = ("scale",)
    granularities: ClassVar[tuple[str, ...]] = ("position", "row", "layer")

    def __post_init__(self):
        super().__post_init__()
        choice("quant.granularity", self.granularity, self.granularities)
        object.__setattr__(self, "eta", within("quant.eta", self.eta, lambda eta: 0 <= eta < 1, "0 <= eta < 1"))

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales for a kernel [*spatial, in, out]: the scaled axes keep their length."""
        spatial = {"position": len(shape) - 2, "row": min(1, len(shape) - 2), "layer": 0}[self.granularity]
        return shape[:spatial] + (1,) * (len(shape) - spatial)

    def initial_scales(self, kernel: Array) -> Scales:
        return {"scale": jnp.ones(self.scale_shape(kernel.shape), jnp.float32)}

    def calibrate_scales(self, kernel: Array) -> Scales:
        """mean |W| over each group."""
        shape = self.scale_shape(kernel.shape)
        axes = tuple(axis for axis, length in enumerate(shape) if length == 1)
        return {"scale": jnp.mean(jnp.abs(kernel), axis=axes, keepdims=True)}

    def statistics(self, kernel: Array) -> Array:
        """max|W|, one element."""
        return jnp.max(jnp.abs(kernel), keepdims=True)

    def _signs(self, kernel: Array, statistics: Array) -> Array:
        sign = jnp.where(kernel >= 0, 1, -1)
        if self.bits == 1:
            return sign
        return jnp.where(jnp.abs(kernel) < self.eta * statistics, 0, sign)

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel = kernel.astype(jnp.float32)
        scale = (scales or {})["scale"]
        statistics = self.statistics(kernel) if statistics is None else statistics
        signs = self._signs(kernel, statistics)
        if self.bits == 1:
            return quantized(signs > 0, 2 * scale, -0.5)
        return quantized(signs + 1, scale, -1.0)

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        signs = self._signs(kernel, statistics).astype(jnp.float32)
        return straight_through(kernel, signs) * scales["scale"]
