"""The low-precision unit: convolution, batch norm, pooling, quantized activation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plq.layers.activation import Activation
from plq.layers.conv import Padding, QuantConv
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, FloatWeights, WeightQuantizer
from plq.quant.dorefa import quantize_gradient


class Unit(nn.Module):
    """low = Qa(pool(BN(conv(x, Qw(W))) + residual)), the first equation of EXP-Net, and a shortcut's end if given.

    Input [batch, *spatial, in], output float32 [batch, *spatial', features]. Everything but the
    convolution can be left out: ``use_norm``, ``pool`` and ``activation``. Below 32 ``gradient_bits`` the
    gradient that reaches the convolution is quantized (needs the random stream "gradient" in training).
    """

    features: int
    kernel_size: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] | None = None
    padding: Padding = "SAME"
    dilation: tuple[int, ...] | None = None
    groups: int = 1
    use_bias: bool = False
    use_norm: bool = True
    pool: Callable[[Any], Any] | None = None
    activation: ActivationQuantizer | None = None
    weights: WeightQuantizer = FloatWeights(FLOAT_BITS)
    gradient_bits: int = FLOAT_BITS
    momentum: float = 0.9
    epsilon: float = 1e-4
    dtype: Any = jnp.float32
    conv: type[QuantConv] = QuantConv

    def conv_arguments(self) -> dict[str, Any]:
        """What a second convolution needs to have the geometry of this unit's."""
        names = ("features", "kernel_size", "strides", "padding", "dilation", "groups", "dtype")
        return {name: getattr(self, name) for name in names}

    @nn.compact
    def __call__(self, x: Any, train: bool, residual: Any = None) -> Array:
        x = self.conv(**self.conv_arguments(), use_bias=self.use_bias, weights=self.weights, name="conv")(x)
        if train and self.gradient_bits != FLOAT_BITS:
            x = quantize_gradient(x, self.make_rng("gradient"), self.gradient_bits)
        if self.use_norm:
            x = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.epsilon, name="norm")(x)
        if residual is not None:
            x = x + residual
        if self.pool is not None:
            x = self.pool(x)
        return x if self.activation is None else Activation(self.activation, name="act")(x)
