"""What a layer's product costs: multiply-accumulates times the bits on both sides."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plq.layers.convert import LISTED, Converted
from plq.layers.describe import UNITS, Layer, layer_table
from plq.layers.dropin import LowPrecision
from plq.quant.base import FLOAT_BITS

IMAGE_BITS = 8
# Operations whose results are values of their input, or 0.
KEEP_THE_GRID = ("halve", "max_pool", "flatten", "shrink")


@dataclasses.dataclass(frozen=True)
class Cost:
    """One layer, with the bits of what it multiplies and of what it gives: 8: images; 32: not quantized."""

    layer: Layer
    input_bits: int
    output_bits: int

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
    """One row per layer of a plain network (`layer_table`), in the order of the data.

    Args:
        network: a converted one, or one that uses `plq.layers.operations` alone between its units.
        image_shape: [height, width, channels].
    """
    layers = layer_table(network, image_shape)
    if isinstance(network, Converted):
        bits = _bits_of_inputs(network, image_shape)
        return [Cost(layer, bits.get(layer.name, FLOAT_BITS), FLOAT_BITS) for layer in layers]
    return _costs_of_units(network, image_shape, {layer.name: layer for layer in layers})


def _bits_of_inputs(network: Converted, image_shape: tuple[int, ...]) -> dict[str, int]:
    """Of what each convolution and dense layer multiplies, by its path: each quantizes its own input."""
    bits: dict[str, int] = {}
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)

    def run(x: Any) -> Any:
        def note(next_function, args, kwargs, context):
            module = context.module
            if context.method_name == "__call__" and isinstance(module, LISTED):
                path, given = "/".join(module.path), IMAGE_BITS if args and args[0] is x else FLOAT_BITS
                bits.setdefault(path, given)
                if isinstance(module, LowPrecision) and module.activation is not None:
                    bits[path] = module.activation.bits
            return next_function(*args, **kwargs)

        with nn.intercept_methods(note):
            return network.init(jax.random.key(0), x)

    jax.eval_shape(run, images)
    return bits


def _costs_of_units(network: nn.Module, image_shape: tuple[int, ...], layers: dict[str, Layer]) -> list[Cost]:
    costs = []

    def follow(next_function, args, kwargs, context):
        module = context.module
        if not isinstance(module, UNITS) or context.method_name != "__call__":
            return next_function(*args, **kwargs)
        layer = layers["/".join(module.path)]
        costs.append(Cost(layer, args[0].bits, layer.activation_bits))
        return _Stream((1, *layer.output_shape), layer.activation_bits)

    with nn.intercept_methods(follow):
        network.apply({}, _Stream((1, *image_shape), IMAGE_BITS))
    return costs
