"""A traced graph in fewer nodes: batch norms written out become `Affine`, sums over all pixels `GlobalMean`, and so on.

Numbers are folded in float64; afterwards all tensors have the types that `Graph` wants.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from plq.runtime import array_nodes as nodes
from plq.runtime.builder import Builder
from plq.runtime.node import Node
from plq.runtime.nodes import Activation, Affine, Flatten, GlobalMean, MaxPool, MaxPool2x2

AFFINE = ("add", "subtract", "multiply", "divide")


class Simplifier:
    """The nodes by name, in order, and the number of readers of each."""

    def __init__(self, builder: Builder, output: str) -> None:
        self.nodes, self.tensors, self.values, self.output = (
            dict(builder.nodes), builder.tensors, builder.values, output,
        )  # fmt: skip
        self._drop_unread()

    def run(self) -> tuple[tuple[Node, ...], dict[str, np.ndarray]]:
        """Nodes and tensors of the graph."""
        for rule in RULES:
            self._each(rule)
        self._drop_unread()
        tensors: dict[str, np.ndarray] = {}
        for node in self.nodes.values():
            for role, dtype in node.roles().items():
                tensors[node.tensor(role)] = np.array(self.tensors[node.tensor(role)], dtype, order="C")
        return tuple(self.nodes.values()), tensors

    def only_source(self, node: Node) -> Node | None:
        """The node that a node of one input reads, if nothing else reads it."""
        source = self.nodes.get(node.inputs[0])
        return source if source and self.readers[source.name] == 1 and source.name != self.output else None

    def read_instead(self, name: str, other: str) -> None:
        """Let all readers of a result read another one."""
        for reader in [node for node in self.nodes.values() if name in node.inputs]:
            inputs = tuple(other if given == name else given for given in reader.inputs)
            self.nodes[reader.name] = dataclasses.replace(reader, inputs=inputs)
        self._count()

    def replace(self, node: Node, **tensors: np.ndarray) -> None:
        """Put a node in the place of the one that has its name."""
        self.nodes[node.name] = node
        self.tensors |= {node.tensor(role): tensor for role, tensor in tensors.items()}
        self._count()

    def _each(self, rule: Callable[["Simplifier", Node], None]) -> None:
        self._count()
        for name in list(self.nodes):
            if name in self.nodes:
                rule(self, self.nodes[name])
        self._drop_unread()

    def _count(self) -> None:
        self.readers = Counter(name for node in self.nodes.values() for name in node.inputs)

    def _drop_unread(self) -> None:
        wanted = {self.output}
        for node in reversed(list(self.nodes.values())):
            if node.name in wanted:
                wanted |= set(node.inputs)
        self.nodes = {name: node for name, node in self.nodes.items() if name in wanted}
        self._count()


def _affine(graph: Simplifier, node: Node) -> None:
    """x + c, x - c, c - x, x c, x / c with one number for all, or one per channel."""
    if not isinstance(node, nodes.ArithmeticConstant) or node.function not in AFFINE:
        return
    constant = np.asarray(graph.tensors[node.tensor("constant")], np.float64)
    shape = graph.values[node.inputs[0]].shape
    if not shape or math.prod(constant.shape[:-1]) != 1 or constant.shape[-1] not in (1, shape[-1]):
        return
    if node.function == "divide" and (node.constant_first or not constant.all()):
        return
    c = np.broadcast_to(constant.reshape(-1), shape[-1:])
    one, zero = np.ones_like(c), np.zeros_like(c)
    scale, shift = {
        "add": (one, c),
        "subtract": (-one, c) if node.constant_first else (one, -c),
        "multiply": (c, zero),
        "divide": (1 / np.where(c, c, 1), zero),
    }[node.function]
    graph.replace(Affine(node.name, node.inputs), scale=scale, shift=shift)


def _global_mean(graph: Simplifier, node: Node) -> None:
    """The sum over height and width, divided by their product."""
    if not isinstance(node, Affine):
        return
    source = graph.only_source(node)
    if not isinstance(source, nodes.Reduce) or (source.function, sorted(source.axes)) != ("sum", [0, 1]):
        return
    shape = graph.values[source.inputs[0]].shape
    scale, shift = (graph.tensors[node.tensor(role)] for role in ("scale", "shift"))
    if len(shape) == 3 and np.allclose(scale, 1 / (shape[0] * shape[1]), rtol=1e-6, atol=0) and not shift.any():
        graph.replace(GlobalMean(node.name, source.inputs))


def _max_pool(graph: Simplifier, node: Node) -> None:
    if not isinstance(node, nodes.Window) or node.function != "max" or len(node.sizes) != 3:
        return
    square = node.sizes == (node.sizes[0], node.sizes[0], 1) and node.strides == (node.strides[0], node.strides[0], 1)
    if square and not node.low[2] and not node.high[2]:
        pads = ((node.low[0], node.high[0]), (node.low[1], node.high[1]))
        graph.replace(MaxPool(node.name, node.inputs, node.sizes[0], node.strides[0], pads))


def _merged_affine(graph: Simplifier, node: Node) -> None:
    """Affine maps one after the other as one."""
    source = graph.only_source(node) if isinstance(node, Affine) else None
    if isinstance(source, Affine):
        (a, b), (c, d) = ([graph.tensors[n.tensor(role)] for role in ("scale", "shift")] for n in (source, node))
        graph.replace(Affine(node.name, source.inputs), scale=c * a, shift=d + c * b)


def _broadcast(graph: Simplifier, node: Node) -> None:
    """A broadcast in front of arithmetic that repeats axes itself."""
    if not isinstance(node, nodes.Arithmetic | nodes.Select):
        return
    shape, inputs = graph.values[node.name].shape, list(node.inputs)
    for index, name in enumerate(inputs):
        source = graph.nodes.get(name)
        others = [graph.values[other].shape for i, other in enumerate(inputs) if i != index]
        if isinstance(source, nodes.Broadcast) and shape in others:
            inputs[index] = source.inputs[0]
    if tuple(inputs) != node.inputs:
        graph.replace(dataclasses.replace(node, inputs=tuple(inputs)))


def _reshape(graph: Simplifier, node: Node) -> None:
    """Reshapes one after the other as one, or as none."""
    source = graph.nodes.get(node.inputs[0]) if isinstance(node, nodes.Reshape) else None
    if isinstance(source, nodes.Reshape):
        graph.replace(dataclasses.replace(node, inputs=source.inputs))
    node = graph.nodes[node.name]
    if (
        isinstance(node, nodes.Reshape)
        and graph.values[node.inputs[0]].shape == node.shape
        and node.name != graph.output
    ):
        graph.read_instead(node.name, node.inputs[0])


def _flatten(graph: Simplifier, node: Node) -> None:
    if isinstance(node, nodes.Reshape) and len(node.shape) == 1 and len(graph.values[node.inputs[0]].shape) == 3:
        graph.replace(Flatten(node.name, node.inputs))


def _relu(graph: Simplifier, node: Node) -> None:
    """A ReLU in front of a quantizer that has one itself, also with max pooling between them."""
    if not isinstance(node, Activation) or node.grid is None or node.nonlinearity not in ("relu", "clip"):
        return
    source = graph.only_source(node)
    while isinstance(source, MaxPool | MaxPool2x2):
        source = graph.only_source(source)
    if source is not None and source == Activation(source.name, source.inputs, "relu"):
        graph.read_instead(source.name, source.inputs[0])


def _same(graph: Simplifier, node: Node) -> None:
    """Two quantizers with the same numbers on the same input."""
    if isinstance(node, Activation):
        for other in graph.nodes.values():
            if other.name == node.name:
                return
            if dataclasses.replace(other, name=node.name) == node and node.name != graph.output:
                graph.read_instead(node.name, other.name)
                return


RULES = (_affine, _global_mean, _max_pool, _merged_affine, _broadcast, _reshape, _flatten, _same, _relu)
