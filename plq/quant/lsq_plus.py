"""LSQ+: learned step and offset, for activations that are below zero too (Bhalgat et al., arXiv 2004.09576)."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.base import ActivationQuantizer, Scales
from plq.quant.learned import best_clip, gradient_scale, learned_grid, positive
from plq.quant.quantized import Quantized, in_units, product, quantized


@dataclasses.dataclass(frozen=True)
class LSQPlusActivation(ActivationQuantizer):
    """value = s * round(clip((h - b) / s, 0, n)) + b of h = hard_swish(x), n = 2**bits - 1; s and b are learned.

        dvalue/ds = round(v) - v inside the clip for v = (h - b) / s, 0 or n outside
        dvalue/db = 0 inside the clip, 1 outside; both times 1 / sqrt(features per image * n)

    s and b start where the squared error on the data is least. Departures: the paper's swish is the piecewise
    hard_swish(x) = x * clip(x + 3, 0, 6) / 6; and the offset in use is the multiple of s nearest to b within
    [-n s, 0], so that codes are integers and 0, with which convolutions pad, is one of the values.
    For weights LSQ+ has no offset: use LSQ.
    """

    scale_names: ClassVar[tuple[str, ...]] = ("step", "offset")

    def nonlinearity(self, x: Array) -> Array:
        return x * (jnp.clip(x + 3, 0, 6) * np.float32(1 / 6))

    def initial_scales(self) -> Scales:
        return {"step": jnp.float32(2 / self.top_code), "offset": jnp.float32(-0.375)}  # min of hard_swish

    def calibrate_scales(self, x: Array) -> Scales:
        h = self.nonlinearity(x)
        low, high = jnp.min(h, initial=0.0), jnp.max(h, initial=0.0)
        span = jnp.maximum(high, -low)  # what `best_clip` shrinks from

        def scales(clip: Array) -> Scales:
            share = clip / jnp.where(span > 0, span, 1.0)
            return {"step": share * (high - low) / self.top_code, "offset": share * low}

        found = scales(best_clip(h, lambda v, clip: self._on_grid(v, scales(clip)).dequantize()))
        return {**found, "step": jnp.where(found["step"] == 0, 1.0, found["step"])}

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        return self._on_grid(self.nonlinearity(x.astype(jnp.float32)), scales or {})

    def _on_grid(self, h: Array, scales: Scales) -> Quantized:
        step, zero = self._step_and_zero(scales)
        return quantized(jnp.clip(jnp.round(in_units(h, step)) - zero, 0, self.top_code), step, zero)

    def _step_and_zero(self, scales: Scales) -> tuple[Array, Array]:
        """s, and the offset in use as a multiple of it."""
        step = positive(scales["step"])
        return step, jnp.clip(jnp.round(in_units(scales["offset"], step)), -self.top_code, 0)

    def surrogate(self, x: Array, scales: Scales) -> Array:
        (step, zero), h = self._step_and_zero(scales), self.nonlinearity(x)
        factor, v = gradient_scale(math.prod(x.shape[1:]), self.top_code), product(h, 1 / step) - zero
        grid = learned_grid(h, v, step, (0, self.top_code), jnp.round, factor)
        return grid + jnp.where((v <= 0) | (v >= self.top_code), factor * scales["offset"], 0.0)
