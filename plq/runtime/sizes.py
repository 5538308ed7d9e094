"""What each layer of a graph takes: bits, weights, bytes. NumPy alone."""

import dataclasses

import numpy as np

from plq.quant.base import FLOAT_BITS
from plq.runtime.graph import Graph
from plq.runtime.nodes import Conv, Product
from plq.runtime.pack import packed_size


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution or dense layer. ``input_bits``: of what it multiplies; 32: in float32.

    ``packed_bytes``: kernel and scales as they are stored; ``float_bytes``: the kernel in float32.
    """

    name: str
    kind: str
    weight_bits: int
    input_bits: int
    output_shape: tuple[int, ...]
    weights: int
    packed_bytes: int
    float_bytes: int


def layers(graph: Graph) -> list[Layer]:
    """One row per convolution or dense layer, in the order in which data passes them."""
    return [_layer(graph, node) for node in graph.nodes if isinstance(node, Product)]


def _layer(graph: Graph, node: Product) -> Layer:
    weights, given = graph.tensors[node.tensor("kernel")].size, graph.values[node.inputs[0]].grid
    packed = 4 * weights
    if node.grid is not None:
        packed = packed_size(weights, node.grid.bits) + graph.tensors[node.tensor("scale")].nbytes
    return Layer(
        name=node.name.removesuffix("/conv"),
        kind=_kind(node),
        weight_bits=FLOAT_BITS if node.grid is None else node.grid.bits,
        input_bits=FLOAT_BITS if given is None else given.bits,
        output_shape=graph.values[node.name].shape,
        weights=weights,
        packed_bytes=packed,
        float_bytes=4 * weights,
    )


def _kind(node: Product) -> str:
    if not isinstance(node, Conv):
        return "dense"
    size = "x".join(map(str, node.kernel_size))
    return f"conv {size}" + (f" /{node.groups}" if node.groups > 1 else "")


def quantized_ratio(rows: list[Layer]) -> float:
    """How many times smaller than in float32 the quantized layers are; 1 if there are none."""
    quantized = [row for row in rows if row.weight_bits != FLOAT_BITS]
    packed = sum(row.packed_bytes for row in quantized)
    return sum(row.float_bytes for row in quantized) / packed if packed else 1.0


def float_size(graph: Graph) -> int:
    """Bytes of all tensors of the graph if its kernels were in float32, without their scales."""
    scales = {node.tensor("scale") for node in graph.nodes if isinstance(node, Product) and node.grid is not None}
    return 4 * int(np.sum([tensor.size for name, tensor in graph.tensors.items() if name not in scales]))
