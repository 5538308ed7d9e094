"""Which nodes of a frozen graph an integer kernel can compute together, and why others cannot be.

A unit is what lies between the codes that a convolution or dense layer reads and the codes that the next one reads:

    codes -> product -> [affine] -> [add a residual] -> [max pooling] -> activation -> codes

Its sums of products are integers, and what follows is a staircase of the sum, channel by channel.
"""

import dataclasses
from typing import cast

import numpy as np

from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.node import Node
from plq.runtime.nodes import Activation, Add, Affine, Conv, MaxPool, MaxPool2x2, Product

INT8, UINT8 = 127, 255
RISING = ("identity", "relu", "clip")
EVEN = ("abs", "abs_clip")  # rising on either side of 0


@dataclasses.dataclass(frozen=True)
class Unit:
    """The nodes of a unit, product first and activation last. ``residual``: the name of what is added, or empty."""

    nodes: tuple[Node, ...]
    residual: str = ""

    @property
    def product(self) -> Product:
        return cast(Product, self.nodes[0])

    @property
    def activation(self) -> Activation:
        return cast(Activation, self.nodes[-1])

    @property
    def grid(self) -> Grid:
        """Of the output."""
        return cast(Grid, self.activation.grid)

    @property
    def affine(self) -> Affine | None:
        return next((node for node in self.nodes if isinstance(node, Affine)), None)

    @property
    def pools(self) -> list[MaxPool2x2 | MaxPool]:
        return [node for node in self.nodes if isinstance(node, MaxPool2x2 | MaxPool)]

    @property
    def is_even(self) -> bool:
        """Whether the activation takes |x|."""
        return self.activation.nonlinearity in EVEN

    @property
    def is_signed(self) -> bool:
        """Whether something below 0 counts: the activation takes |x|, or a residual is still to be added."""
        return bool(self.residual) or self.is_even


class _Unfit(Exception):
    """Why a product begins no unit."""


def find_units(graph: Graph) -> dict[str, Unit | str]:
    """For every convolution and dense layer, by name: the unit that it begins, or why it begins none."""
    return {node.name: _unit_or_reason(graph, node) for node in graph.nodes if isinstance(node, Product)}


def _unit_or_reason(graph: Graph, product: Product) -> Unit | str:
    try:
        _check_product(graph, product)
        unit = _follow(graph, product)
        _check_activation(unit)
        _check_residual(graph, unit)
    except _Unfit as reason:
        return str(reason)
    return unit


def _check_product(graph: Graph, product: Product) -> None:
    """Input and weights are integers of eight bits at most, and each channel has one scale."""
    grid = graph.values[product.inputs[0]].grid
    if grid is None:
        raise _Unfit("its input is float")
    if product.grid is None:
        raise _Unfit("its weights are float")
    if any(length > 1 for length in graph.tensors[product.tensor("scale")].shape[:-1]):
        raise _Unfit("its weights have a scale per position")


def _follow(graph: Graph, product: Product) -> Unit:
    """The nodes from the product to its activation, each the only reader of the one before."""
    nodes: list[Node] = [product]
    residual = ""
    while not isinstance(nodes[-1], Activation):
        node = only_reader(graph, nodes[-1].name)
        met = {type(previous) for previous in nodes[1:]}
        if isinstance(node, Affine) and not met:
            pass
        elif isinstance(node, Add) and met <= {Affine}:
            residual = node.inputs[node.inputs[0] == nodes[-1].name]
        elif not isinstance(node, MaxPool2x2 | MaxPool | Activation):
            raise _Unfit("its output is float")
        nodes.append(cast(Node, node))
    if cast(Activation, nodes[-1]).grid is None:
        raise _Unfit("its output is float")
    return Unit(tuple(nodes), residual)


def only_reader(graph: Graph, name: str) -> Node | None:
    """The node that reads a value, if there is exactly one."""
    readers = [node for node in graph.nodes for read in node.inputs if read == name]
    return readers[0] if len(readers) == 1 else None


def _check_activation(unit: Unit) -> None:
    """The steps of the output follow the sum and fit into uint8."""
    grid, nonlinearity = unit.grid, unit.activation.nonlinearity
    if nonlinearity not in RISING + EVEN:
        raise _Unfit(f"{nonlinearity} goes down and up")
    if unit.is_signed and (grid.levels or grid.offset or grid.codes > 128):
        raise _Unfit("what precedes its activation does not fit into uint8 with a sign")
    if grid.levels and 2 * grid.integers[-1] > UINT8:
        raise _Unfit("the halves of its output's levels do not fit into uint8")


def _check_residual(graph: Graph, unit: Unit) -> None:
    """What is added are codes of the output's own grid, so that it can be added after rounding."""
    if not unit.residual:
        return
    added = graph.values[unit.residual]
    if added.grid is None:
        raise _Unfit("what is added to it is float")
    if added.scale != unit.activation.scale or added.grid.levels or added.grid.offset:
        raise _Unfit("what is added to it has another grid")
    if unit.is_even:
        raise _Unfit("its activation takes |x| of a sum")
    if added.grid.codes > unit.grid.codes:
        raise _Unfit("what is added to it has more bits")


def has_integers(graph: Graph, product: Product) -> bool:
    """Whether its input are uint8 codes, its weights int8 integers, and each channel has one scale."""
    try:
        _check_product(graph, product)
    except _Unfit:
        return False
    return fits_int8(cast(Grid, product.grid).integers[graph.tensors[product.tensor("kernel")]])


def is_matrix(graph: Graph, product: Product) -> bool:
    """Whether the product is one of matrices: a dense layer, or a convolution whose kernel covers the whole input."""
    if not isinstance(product, Conv):
        return True
    covers = product.kernel_size == graph.values[product.inputs[0]].shape[:2]
    return covers and product.groups == 1 and max(product.dilation) == 1 and not np.any(product.padding)


def fits_int8(kernel: np.ndarray) -> bool:
    """Whether integers are in [-128, 127]."""
    return bool(-INT8 - 1 <= kernel.min() <= kernel.max() <= INT8)
