"""A convolution, or a dense layer, whose kernel is quantized: the paper's LPconv without batch norm."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plq.layers.depthwise import convolve
from plq.layers.scales import quantized_kernel, weight_scales
from plq.layers.shifts import Padding
from plq.quant.base import FLOAT_BITS, FloatWeights, Scales, WeightQuantizer

default_kernel_init = nn.initializers.he_normal()


class QuantConv(nn.Module):
    """conv(x, Qw(W)) + b for 1, 2 or 3 spatial axes; an empty ``kernel_size`` makes it a dense layer.

    Input [batch, *spatial, in] (dense: [batch, in]), output float32 [batch, *spatial', features].
    The kernel [*kernel_size, in / groups, features] is float32 and quantized in float32; ``dtype`` is what
    the multiplication itself runs in.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: Padding = "SAME"
    dilation: tuple[int, ...] | None = None
    groups: int = 1
    use_bias: bool = False
    weights: WeightQuantizer = FloatWeights(FLOAT_BITS)
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = default_kernel_init

    @nn.compact
    def __call__(self, x: Any) -> Array:
        y = self.product(x)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y

    def product(self, x: Any) -> Array:
        """conv(x, Qw(W)), without the bias."""
        kernel = self.param("kernel", self.kernel_init, self.kernel_shape(x.shape[-1]), jnp.float32)
        return self.contract(x, quantized_kernel(self, self.weights, kernel))

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, channels // self.groups, self.features)

    def kernel_and_scales(self, channels: int) -> tuple[Array, Scales]:
        """The latent kernel and the quantizer's learned scales, created on first use."""
        shape = self.kernel_shape(channels)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return kernel, weight_scales(self, self.weights, kernel)

    def contract(self, x: Array, kernel: Array) -> Array:
        """The product of an input and a ready kernel, in ``dtype``, returned in float32."""
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if not self.kernel_size:
            return jnp.dot(x, kernel).astype(jnp.float32)
        spatial = "DHW"[-len(self.kernel_size) :]
        strides = self.strides or (1,) * len(spatial)
        y = convolve(
            x,
            kernel,
            strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
            feature_group_count=self.groups,
        )
        return y.astype(jnp.float32)
