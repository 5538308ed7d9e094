"""What stands between a stream of residual sums in float and a low-precision convolution: Qa(BN(x))."""

import flax.linen as nn
from jax import Array

from plq.layers.activation import Activation
from plq.quant.base import FLOAT_BITS, ActivationQuantizer


class PreActivation(nn.Module):
    """Qa(BN(x)) of x [batch, ..., channels], float32 in the same shape.

    Where a block adds to a stream and does not quantize the sum, the convolutions that read the stream need this to
    get their input on the activation's grid. Without a batch norm (``use_norm`` False) it is Qa((x + 1) / 2): the grid
    spans [-1, 1], so that nothing acts as a ReLU, and the norm behind the convolution takes up shift and scale. That
    is for 1x1 convolutions: where others pad with zeros, this would stand for x = -1. At 32 bits it is x itself.
    """

    activation: ActivationQuantizer
    use_norm: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-4

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.use_norm:
            x = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.epsilon, name="norm")(x)
        elif self.activation.bits == FLOAT_BITS:
            return x
        else:
            x = x * 0.5 + 0.5
        return Activation(self.activation, name="act")(x)
