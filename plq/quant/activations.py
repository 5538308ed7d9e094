"""Uniform quantization of activations on [0, 1], with the two clippings of EXP-Net's networks."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.base import FLOAT_BITS, NO_CODES, ActivationQuantizer, Scales
from plq.quant.quantized import Quantized, quantized


@dataclasses.dataclass(frozen=True)
class AbsActivation(ActivationQuantizer):
    """min(1, |x|), then ``bits`` bits: EXP-Net's SVHN network. codes = round(min(1, |x|) * n), value = codes / n.

    | bits | n = 2**bits - 1 | levels          |
    |------|-----------------|-----------------|
    | 1    | 1               | 0, 1            |
    | 2    | 3               | 0, 1/3, 2/3, 1  |
    | 8    | 255             | 0, 1/255 ... 1  |

    Rounding is half to even. Gradient: that of the clipping as written, identity through the rounding.
    """

    def nonlinearity(self, x: Array) -> Array:
        return jnp.minimum(1.0, jnp.abs(x))

    def rounded(self, x: Array) -> Array:
        """x in [0, n] to the nearest integer."""
        return jnp.round(x)

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        codes = self.rounded(self.nonlinearity(x.astype(jnp.float32)) * self.top_code)
        return quantized(codes, np.float32(1 / self.top_code), 0.0)

    def surrogate(self, x: Array, scales: Scales) -> Array:
        return self.nonlinearity(x)


@dataclasses.dataclass(frozen=True)
class ClipActivation(AbsActivation):
    """clip(x, 0, 1), then ``bits`` bits as above, rounding half up, floor(x * n + 1/2): EXP-Net's AlexNet."""

    def nonlinearity(self, x: Array) -> Array:
        return jnp.clip(x, 0.0, 1.0)

    def rounded(self, x: Array) -> Array:
        return jnp.floor(x + 0.5)


@dataclasses.dataclass(frozen=True)
class ReluActivation(ActivationQuantizer):
    """max(0, x) without an upper end, for float networks."""

    legal_bits: ClassVar[tuple[int, ...]] = (FLOAT_BITS,)

    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        raise ValueError(NO_CODES)

    def surrogate(self, x: Array, scales: Scales) -> Array:
        return self.nonlinearity(x)
