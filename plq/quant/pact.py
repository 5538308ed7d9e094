"""PACT: activations with a learned clip (Choi et al., arXiv 1805.06085)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.base import ActivationQuantizer, Scales
from plq.quant.learned import best_clip, positive
from plq.quant.quantized import Quantized, in_units, product, quantized


@dataclasses.dataclass(frozen=True)
class PACTActivation(ActivationQuantizer):
    """y = clip(x, 0, alpha), value = round(y * n / alpha) * alpha / n, n = 2**bits - 1, alpha learned.

        dvalue/dx = 1 where 0 < x < alpha, else 0;   dvalue/dalpha = 1 where x >= alpha, else 0     (eq. 3)

    The paper draws alpha down by L2: give optimizer.decay_roles the role "quantizer" for it. Departure: the paper
    starts alpha at a constant; here it starts where the squared error on the data is least.
    """

    scale_names: ClassVar[tuple[str, ...]] = ("alpha",)

    def initial_scales(self) -> Scales:
        return {"alpha": jnp.float32(3.0)}

    def calibrate_scales(self, x: Array) -> Scales:
        return {"alpha": best_clip(jax.nn.relu(x), lambda v, clip: self.quantize(v, {"alpha": clip}).dequantize())}

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        step = product(positive((scales or {})["alpha"]), np.float32(1 / self.top_code))
        return quantized(jnp.round(jnp.clip(in_units(x.astype(jnp.float32), step), 0, self.top_code)), step, 0.0)

    def surrogate(self, x: Array, scales: Scales) -> Array:
        alpha = positive(scales["alpha"])
        return jnp.where((x > 0) & (x < alpha), x, 0.0) + jnp.where(x >= alpha, alpha, 0.0)
