"""The quantized activation as a layer, which holds the scales that it learns."""

import flax.linen as nn
from jax import Array

from plq.layers.opaque import step
from plq.layers.scales import activation_scales
from plq.quant.base import ActivationQuantizer


class Activation(nn.Module):
    """Qa(x) of x [batch, ...], float32 in the same shape. What the quantizer learns are parameters of this layer.

    They start as constants; `plq.layers.scales.calibrate` sets them from data.
    """

    quantizer: ActivationQuantizer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scales = activation_scales(self, self.quantizer, x)
        return step("activation", "/".join(self.path), self.quantizer, self.quantizer, x, scales)
