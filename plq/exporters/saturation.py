"""Sums that may be cut off: a product whose real numbers are needed, but only where they decide something.

Before a residual of another scale is added, or hard swish is taken, a sum cannot be rounded to codes. But where the
activation behind it clips whatever else happens, one sum is as good as another. If no more than 256 sums lie between
the two ends, a uint8 kernel can give the sum itself, shifted and saturated, and nothing is lost.
"""

from typing import cast

import numpy as np

from plq.exporters.units import EVEN, RISING, has_integers, only_reader
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.node import Node
from plq.runtime.nodes import Activation, Add, Affine, MaxPool, MaxPool2x2, Product

SUMS = 256


def window(graph: Graph, product: Product) -> np.ndarray | None:
    """The lowest sum of each channel that must be told apart, int64 [channels]; None if 256 sums are not enough."""
    affine = only_reader(graph, product.name)
    if not has_integers(graph, product):
        return None
    node: Node | None = affine if isinstance(affine, Affine) else product
    scale, shift = np.ones(1), np.zeros(1)
    if isinstance(affine, Affine):
        scale, shift = (graph.tensors[affine.tensor(role)].astype(np.float64) for role in affine.roles())
    ends = deciding(graph, cast(Node, node).name)
    if ends is None:
        return None
    value, grid = graph.values[product.inputs[0]], cast(Grid, product.grid)
    worth = graph.tensors[product.tensor("scale")].astype(np.float64).reshape(-1) * value.scale / grid.multiple * scale
    worth, shift = np.broadcast_to(worth, product.features), np.broadcast_to(shift, product.features)
    safe = np.where(worth == 0, 1, worth)
    sums = np.sort(np.stack([(end - shift) / safe for end in ends]), axis=0)
    low, high = np.where(worth == 0, 0, np.floor(sums[0]) - 1), np.where(worth == 0, 0, np.ceil(sums[1]) + 1)
    return low.astype(np.int64) if (high - low).max() < SUMS else None


def deciding(graph: Graph, name: str) -> tuple[float, float] | None:
    """The real numbers below and above which a value makes no difference, if it goes into one activation that clips."""
    below, above = 0.0, 0.0
    while True:
        node = only_reader(graph, name)
        if isinstance(node, Add) and not below and not above:
            added = graph.values[node.inputs[node.inputs[0] == name]]
            if added.grid is None:
                return None
            below, above = (float(end) * added.scale for end in (added.grid.integers[-1], added.grid.integers[0]))
        elif isinstance(node, Activation):
            ends = clipping(node)
            return None if ends is None else (ends[0] - below, ends[1] - above)
        elif not isinstance(node, MaxPool2x2 | MaxPool):
            return None
        name = node.name


def clipping(node: Activation) -> tuple[float, float] | None:
    """The real numbers below and above which an activation gives what it gives at them."""
    if node.grid is None:
        return {"clip": (0.0, 1.0), "abs_clip": (-1.0, 1.0)}.get(node.nonlinearity)
    integers = node.grid.integers
    low, high = (float(a + b) / 2 * node.scale for a, b in (integers[:2], integers[-2:]))
    if node.nonlinearity in RISING:
        return low, high
    if node.nonlinearity in EVEN:
        return -high, high
    return min(-3.0, low), max(3.0, high)  # hard swish: 0 up to -3, and from 3 on its argument
