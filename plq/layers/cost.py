"""What a layer's product costs: multiply-accumulates times the bits on both sides."""

import dataclasses
from typing import Any

import flax.linen as nn

from plq.layers.describe import Layer, layer_table
from plq.layers.pre_activation import PreActivation
from plq.layers.unit import Unit
from plq.quant.base import FLOAT_BITS

IMAGE_BITS = 8
# Operations whose results are values of their input, or 0.
KEEP_THE_GRID = ("halve", "max_pool", "flatten", "shrink")


@dataclasses.dataclass(frozen=True)
class Cost:
    """One layer, with the bits of what it is given: 8 for images, 32 for what is not quantized."""

    layer: Layer
    input_bits: int

    @property
    def bit_operations(self) -> int:
        """BOPs = multiply-accumulates x weight bits x input bits (van Baalen et al., arXiv 2005.07093)."""
        return self.layer.macs * self.layer.weight_bits * self.input_bits


@dataclasses.dataclass(frozen=True)
class _Stream:
    """Stands for an array of which shape and bits are known: a `plq.layers.operations.Tracer`."""

    shape: tuple[int, ...]
    bits: int

    def record(self, operation: str, output_shape: tuple[int, ...], options: dict[str, Any]) -> "_Stream":
        return _Stream(output_shape, self.bits if operation in KEEP_THE_GRID else FLOAT_BITS)


def cost_table(network: nn.Module, image_shape: tuple[int, ...]) -> list[Cost]:
    """One row per `Unit` or `PreActivation` of a plain network (`Architecture.plain`), in the order of the data.

    Args:
        network: between its units it uses `plq.layers.operations` alone. image_shape: [height, width, channels].
    """
    layers = {layer.name: layer for layer in layer_table(network, image_shape)}
    costs = []

    def follow(next_function, args, kwargs, context):
        module = context.module
        if not isinstance(module, (Unit, PreActivation)) or context.method_name != "__call__":
            return next_function(*args, **kwargs)
        layer = layers["/".join(module.path)]
        costs.append(Cost(layer, args[0].bits))
        return _Stream((1, *layer.output_shape), layer.activation_bits)

    with nn.intercept_methods(follow):
        network.apply({}, _Stream((1, *image_shape), IMAGE_BITS))
    return costs
