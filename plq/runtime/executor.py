"""Runs a graph in JAX: integers between quantized layers, float32 elsewhere.

A result on a grid is carried as its integers, level + offset, in float32; its real numbers are these times its scale.
Sums of integer products are exact (`plq.runtime.product`), so what is rounded is only what lies between two quantized
layers: the product of a sum with its scales, the affine map, the residual sum, and what is divided before rounding.
"""

import dataclasses
from typing import Any

import numpy as np
from jax import Array

from plq.data.augment import normalize
from plq.layers.operations import OPERATIONS
from plq.runtime.arithmetic import NONLINEARITY, before_rounding, on_grid
from plq.runtime.array_nodes import ARRAY_NODES, ArithmeticConstant
from plq.runtime.array_operations import compute
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.node import Node, Value
from plq.runtime.nodes import Activation, Add, Affine, Normalize, Product
from plq.runtime.product import IntegerProduct, integer_product, multiply

Arrays = dict[str, Any]  # by node: what is handed to the compiled function instead of being a part of it


@dataclasses.dataclass(frozen=True)
class Runner:
    """A graph, planned. ``arrays`` are an argument of everything that is compiled, so that they are stored once."""

    graph: Graph
    products: dict[str, IntegerProduct]
    arrays: Arrays

    def logits(self, arrays: Arrays, images: Array) -> Array:
        """float32 [batch, classes] of uint8 images [batch, *image_shape]."""
        return self.results(arrays, images)[0][self.graph.output]

    def results(self, arrays: Arrays, images: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """The result of every node, and what every quantized activation rounds."""
        results, rounded = {IMAGE: images}, {}
        for node in self.graph.nodes:
            if isinstance(node, Activation) and node.grid is not None:
                divisor, factor = arrays[node.name]
                rounded[node.name] = before_rounding(node, self._real(results, node.inputs[0]), divisor, factor)
                results[node.name] = on_grid(node, rounded[node.name])
            else:
                results[node.name] = self._result(node, results, arrays.get(node.name))
        return results, rounded

    def _result(self, node: Node, results: dict[str, Array], arrays: Any) -> Array:
        x, *rest = node.inputs
        if isinstance(node, Normalize):
            return normalize(results[x], node.mean, node.std)
        if node.name in self.products:
            return self.products[node.name](results[x], *arrays)
        if isinstance(node, Product):
            return multiply(node, self._real(results, x), arrays)
        if isinstance(node, Affine):
            scale, shift = arrays
            return self._real(results, x) * scale + shift
        if isinstance(node, Add):
            return self._real(results, x) + self._real(results, rest[0])
        if isinstance(node, Activation):
            return NONLINEARITY[node.nonlinearity](self._real(results, x))
        keeps = self.graph.values[node.name].grid is not None
        given = [results[name] if keeps else self._real(results, name) for name in node.inputs]
        if isinstance(node, ARRAY_NODES):
            return compute(node, given, arrays)
        options = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
        del options["name"], options["inputs"]
        return OPERATIONS[node.op](*given, **options)

    def _real(self, results: dict[str, Array], name: str) -> Array:
        return real(results[name], self.graph.values[name])


def real(result: Array, value: Value) -> Array:
    """The real numbers of a result, float32."""
    return result if value.grid is None else result * np.float32(value.scale)


def plan(graph: Graph) -> Runner:
    """Get a checked graph ready to run. Raises UserError if a layer's sums or scales could overflow."""
    products = {
        node.name: integer_product(graph, node)
        for node in graph.nodes
        if isinstance(node, Product) and node.grid is not None and graph.values[node.inputs[0]].grid is not None
    }
    arrays: Arrays = {name: (product.kernel, product.multipliers) for name, product in products.items()}
    for node in graph.nodes:
        if isinstance(node, Activation) and node.grid is not None:
            arrays[node.name] = (np.float32(node.divisor), np.float32(node.factor))
        elif isinstance(node, Product) and node.name not in products:
            arrays[node.name] = graph.kernel(node)
        elif isinstance(node, Affine):
            arrays[node.name] = tuple(graph.tensors[node.tensor(role)] for role in node.roles())
        elif isinstance(node, ArithmeticConstant):
            arrays[node.name] = graph.tensors[node.tensor("constant")]
    return Runner(graph, products, arrays)
