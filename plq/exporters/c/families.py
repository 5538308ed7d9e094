"""Which kernel computes a product: by bits, channels and groups, and what that kernel makes of the weights.

| family    | input           | weights                                         |
|-----------|-----------------|-------------------------------------------------|
| lut       | uint8, up to 31 | one or two bits, by lookup                      |
| dot       | uint8           | int8, fours of channels                         |
| depthwise | uint8           | int16, each channel a group of its own          |
| wide      | int32           | int32                                           |
| real      | float32         | float32                                         |

A kernel on integers gives sum(weight * stored number); `Coding` says how the weights are written for it.
"""

import dataclasses
import math

import numpy as np

from plq.exporters.c.plan import BYTES, INTEGERS, PIXELS, REALS, Store
from plq.runtime.graph import Graph
from plq.runtime.nodes import Conv, Normalize, Product

LUT, DOT, DEPTHWISE, WIDE, REAL = "lut", "dot", "depthwise", "wide", "real"
BYTE, INT8, INT16, UINT16, INT32 = 255, 127, 2**15 - 1, 2**16 - 1, 2**31 - 1
TABLE = 4  # channels of one lookup


@dataclasses.dataclass(frozen=True)
class Coding:
    """integer = step * stored weight + shift. ``planes``: whether lookups take two bits."""

    family: str
    step: int = 1
    shift: int = 0
    planes: bool = False


def integers_of(graph: Graph, node: Product) -> np.ndarray:
    """The weights as integers, int32 in the kernel's shape."""
    assert node.grid is not None
    return node.grid.integers[graph.tensors[node.tensor("kernel")]]


def is_depthwise(graph: Graph, node: Product) -> bool:
    """Whether each of several channels is a group of its own."""
    return isinstance(node, Conv) and node.groups == graph.values[node.inputs[0]].shape[-1] > 1


def has_one_scale(graph: Graph, node: Product) -> bool:
    """Whether no weight's scale depends on its position."""
    return all(length == 1 for length in graph.tensors[node.tensor("scale")].shape[:-1])


def choose(graph: Graph, node: Product, given: Store) -> Coding:
    """The family of a product that reads a value stored like that."""
    if node.grid is None or given.kind == REALS or (given.kind == PIXELS and not on_pixels(graph, node)):
        return Coding(REAL)
    weights = integers_of(graph, node)
    terms = math.prod(weights.shape[:-1])
    steps = np.unique(np.diff(node.grid.integers))
    if given.kind == INTEGERS or terms * given.largest * max(INT8 + 1, int(np.abs(weights).max())) > INT32 // 4:
        return Coding(WIDE)
    if is_depthwise(graph, node):
        return Coding(DEPTHWISE if np.abs(weights).max() <= INT16 else WIDE)
    assert given.kind in (BYTES, PIXELS)
    if len(steps) == 1 and _by_lookup(node, weights, given, terms):
        return Coding(LUT, int(steps[0]), int(node.grid.integers[0]), node.grid.codes > 2)
    if weights.min() >= -INT8 - 1 and weights.max() <= INT8:
        return Coding(DOT)
    if len(steps) == 1:
        return Coding(DOT, int(steps[0]), int(node.grid.integers[0]) + (INT8 + 1) * int(steps[0]))
    return Coding(WIDE)


def _by_lookup(node: Product, weights: np.ndarray, given: Store, terms: int) -> bool:
    """Whether weights have so few bits, and numbers too, that lookups are worth it and cannot overflow."""
    assert node.grid is not None
    few = node.grid.codes == 2 or (node.grid.codes <= 4 and given.largest <= 7)
    fits = 2 * TABLE * given.largest <= BYTE and terms * given.largest <= UINT16
    return few and fits and weights.shape[-2] >= TABLE


def on_pixels(graph: Graph, node: Product) -> bool:
    """Whether sums of pixels times integers are all that a product needs: x = (pixel - mean) / std, and 0 is a pixel.

    All channels have one std, all weights of a feature one scale, and what pads, if anything, is a pixel.
    """
    normalize = graph.nodes[0]
    assert isinstance(normalize, Normalize)
    if len(set(normalize.std)) > 1 or not has_one_scale(graph, node):
        return False
    return not is_padded(node) or pixel_of_zero(graph) is not None


def is_padded(node: Product) -> bool:
    """Whether zeros surround the input."""
    return isinstance(node, Conv) and bool(np.any(node.padding))


def pixel_of_zero(graph: Graph) -> int | None:
    """The pixel that is normalized to 0, if it is the same in all channels."""
    normalize = graph.nodes[0]
    assert isinstance(normalize, Normalize)
    mean = normalize.mean[0]
    alone = len(set(normalize.mean)) == 1 and mean == int(mean) and 0 <= mean <= BYTE
    return int(mean) if alone else None


def convolution_pad(graph: Graph, given: Store) -> int:
    """The stored number that stands for zero."""
    return -given.base if given.kind != PIXELS else pixel_of_zero(graph) or 0
