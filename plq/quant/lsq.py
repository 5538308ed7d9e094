"""LSQ: learned step size quantization of weights and activations (Esser et al., arXiv 1902.08153)."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from plq.checks import choice
from plq.quant.base import ActivationQuantizer, Scales, WeightQuantizer
from plq.quant.binary import binarize
from plq.quant.learned import gradient_scale, learned_grid, positive, times_slope
from plq.quant.quantized import Quantized, in_units, quantized


@dataclasses.dataclass(frozen=True)
class LSQ(WeightQuantizer):
    """value = s * round(clip(W / s, -Qn, Qp)), Qn = 2**(k-1), Qp = 2**(k-1) - 1, s learned per layer or per channel.

        dvalue/ds = round(W/s) - W/s inside the clip, -Qn or Qp outside; times 1 / sqrt(weights per step * Qp)
        dvalue/dW = 1 inside the clip, 0 outside
        s starts at 2 mean|W| / sqrt(Qp); for an all-zero channel at that of its layer, for an all-zero layer at 1

    The paper has no 1-bit weights: here they are sign(W) * s, identity gradient to W, s starting at mean|W|. A step
    that an update makes negative counts by its magnitude.
    """

    granularity: str = "layer"
    legal_bits: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)
    scale_names: ClassVar[tuple[str, ...]] = ("step",)
    granularities: ClassVar[tuple[str, ...]] = ("layer", "channel")

    def __post_init__(self):
        super().__post_init__()
        choice("quant.granularity", self.granularity, self.granularities)

    @property
    def bounds(self) -> tuple[int, int]:
        """-Qn and Qp; -1 and 1 at 1 bit."""
        return (-1, 1) if self.bits == 1 else (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)

    def initial_scales(self, kernel: Array) -> Scales:
        axes = tuple(range(kernel.ndim - 1)) if self.granularity == "channel" else None
        layer = jnp.mean(jnp.abs(kernel), keepdims=True)
        mean = jnp.mean(jnp.abs(kernel), axis=axes, keepdims=True)
        mean = jnp.where(mean == 0, layer, mean)
        step = mean if self.bits == 1 else 2 * mean / math.sqrt(self.bounds[1])
        return {"step": jnp.where(mean == 0, 1.0, step).astype(jnp.float32)}

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        kernel, step = kernel.astype(jnp.float32), positive((scales or {})["step"])
        if self.bits == 1:
            return binarize(kernel, step)
        low, high = self.bounds
        return quantized(jnp.round(jnp.clip(in_units(kernel, step), low, high)) - low, step, low)

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        step, raw = positive(scales["step"]), scales["step"]
        factor = gradient_scale(kernel.size / raw.size, self.bounds[1])
        if self.bits == 1:
            return kernel + times_slope(factor * step, jnp.where(kernel >= 0, 1.0, -1.0))
        return learned_grid(kernel, in_units(kernel, step), step, self.bounds, jnp.round, factor)


@dataclasses.dataclass(frozen=True)
class LSQActivation(ActivationQuantizer):
    """value = s * round(clip(x / s, 0, n)), n = 2**bits - 1, with one learned s; the clip takes the ReLU's place.

    Gradients as for the weights, that of s times 1 / sqrt(features per image * n). s starts at
    2 mean(relu(x)) / sqrt(n).
    """

    scale_names: ClassVar[tuple[str, ...]] = ("step",)

    def initial_scales(self) -> Scales:
        return {"step": jnp.float32(2 * _HALF_NORMAL / math.sqrt(self.top_code))}

    def calibrate_scales(self, x: Array) -> Scales:
        step = 2 * jnp.mean(jax.nn.relu(x)) / math.sqrt(self.top_code) if x.size else 0
        return {"step": jnp.where(step == 0, self.initial_scales()["step"], step)}

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        step = positive((scales or {})["step"])
        return quantized(jnp.round(jnp.clip(in_units(x.astype(jnp.float32), step), 0, self.top_code)), step, 0.0)

    def surrogate(self, x: Array, scales: Scales) -> Array:
        step, factor = positive(scales["step"]), gradient_scale(math.prod(x.shape[1:]), self.top_code)
        return learned_grid(x, in_units(x, step), step, (0, self.top_code), jnp.round, factor)


_HALF_NORMAL = 1 / math.sqrt(2 * math.pi)  # mean of relu(x) for a standard normal x
