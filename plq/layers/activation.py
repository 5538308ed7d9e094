"""The quantized activation as a layer, which holds the scales that it learns, and their start from real images."""

from typing import Any

import flax.linen as nn
from jax import Array

from plq.quant.base import FLOAT_BITS, ActivationQuantizer


class Activation(nn.Module):
    """Qa(x) of x [batch, ...], float32 in the same shape. What the quantizer learns are parameters of this layer."""

    quantizer: ActivationQuantizer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.quantizer.bits == FLOAT_BITS:
            return self.quantizer(x)
        initial = lambda name: self.quantizer.initial_scales()[name]
        scales = {name: self.variable("params", name, initial, name) for name in self.quantizer.scale_names}
        if scales and self.is_mutable_collection("params") and not self.is_initializing():
            for name, value in self.quantizer.scales_of(x).items():
                scales[name].value = value
        return self.quantizer(x, {name: scale.value for name, scale in scales.items()})


def calibrate(network: nn.Module, variables: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The variables with the learned scales of all activations set from data, layer after layer in one pass.

    Each `Activation` sets its scales to fit what it gets and quantizes with them, so that the next layer sees what it
    will see in training. Nothing else changes, batch statistics included.

    Args:
        network: any Linen network. args, kwargs: what it is called with; pass ``train=True`` (or what means it) where
            the batch statistics are still those of the initialization.
    """
    mutable = [name for name in variables if name != "ancillary"]
    _, changed = network.apply(variables, *args, mutable=mutable, **kwargs)
    return {**variables, "params": changed["params"]}
