"""A graph as stages: what is computed in one go, and how its result is stored.

A stage is a product, or the elements of a value, with all that follows it element by element; or any other node by
itself. Pooling in front of a rounding that rises is taken behind it: the largest code is the code of the largest
number. `Flatten` and `Reshape` are no stages: their result is their input under another name.
"""

import dataclasses
from collections import defaultdict
from functools import cached_property

import numpy as np

from plq.runtime.array_nodes import ARRAY_NODES, Reshape
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.node import Node, Shape, Value
from plq.runtime.nodes import Activation, Add, Affine, Flatten, GlobalMean, MaxPool, MaxPool2x2, Normalize, Product

PIXELS, BYTES, INTEGERS, REALS = "pixels", "bytes", "integers", "reals"
SIZES = {PIXELS: 1, BYTES: 1, INTEGERS: 4, REALS: 4}
RISING = ("identity", "relu", "clip")
BYTE = 255


@dataclasses.dataclass(frozen=True)
class Store:
    """How a value lies in memory, channels last.

    kind     pixels: uint8 of the image, to be normalized; bytes: uint8, integer - ``base``; integers: int32; reals
    largest  of the stored numbers, if they are integers
    scale    of the integers
    """

    kind: str
    shape: Shape
    base: int = 0
    largest: int = 0
    scale: float = 1.0

    @property
    def bytes(self) -> int:
        """Of one value."""
        return SIZES[self.kind] * int(np.prod(self.shape))


def stored(value: Value) -> Store:
    """How a result is stored: on a grid in bytes where its integers and 0 fit into one."""
    if value.grid is None:
        return Store(REALS, value.shape)
    low, high = min(0, int(value.grid.integers[0])), max(0, int(value.grid.integers[-1]))
    if high - low <= BYTE:
        return Store(BYTES, value.shape, low, high - low, value.scale)
    return Store(INTEGERS, value.shape, 0, max(-low, high), value.scale)


@dataclasses.dataclass(frozen=True)
class Step:
    """A node that works element by element; ``other``: what an `Add` adds."""

    node: Affine | Add | Activation
    other: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """``node``: a product, a pooling, a mean, a shrink, or None where only ``steps`` are taken; read from ``input``."""

    node: Node | None
    input: str
    steps: tuple[Step, ...]
    output: str
    also: tuple[str, ...] = ()  # what a node of several inputs reads beside ``input``

    @property
    def reads(self) -> tuple[str, ...]:
        """The values that must be there."""
        return (self.input, *self.also, *(step.other for step in self.steps if step.other))


class Plan:
    """The stages of a checked graph in the order in which they run, and the stores of all values that they pass on."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.stores: dict[str, Store] = {}
        self.alias: dict[str, str] = {}
        self._place = {node.name: index for index, node in enumerate(graph.nodes)}
        self._taken: set[str] = set()
        found: list[tuple[int, Stage]] = []
        for node in graph.nodes:
            if node.name not in self._taken:
                found += self._begin(node)
        self.stages = [self._rooted(stage) for _, stage in sorted(found, key=lambda pair: pair[0])]
        self.output = self.root(graph.output)

    def root(self, name: str) -> str:
        """The name under which a value is stored."""
        while name in self.alias:
            name = self.alias[name]
        return name

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """By value: the nodes that read it, as often as they do."""
        readers = defaultdict(list)
        for node in self.graph.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return readers

    def _begin(self, node: Node) -> list[tuple[int, Stage]]:
        """The stages that begin with a node, each with the place at which it runs."""
        if isinstance(node, Normalize):
            return self._image(node)
        if isinstance(node, Flatten | Reshape):
            self.alias[node.name] = node.inputs[0]
            self.stores[node.name] = dataclasses.replace(
                self.stores[self.root(node.inputs[0])], shape=self.graph.values[node.name].shape
            )
            return []
        if isinstance(node, Affine | Add | Activation):
            return self._grow(None, node.inputs[0], node)
        if isinstance(node, Product):
            return self._grow(node, node.inputs[0], node)
        if isinstance(node, ARRAY_NODES):
            return self._array(node)
        return [self._put(node, node.inputs[0], (), node.name, self.graph.values[node.name])]

    def _image(self, node: Normalize) -> list[tuple[int, Stage]]:
        """The image is read where it lies, unless something needs it normalized in memory."""
        shape = self.graph.image_shape
        self.stores[IMAGE] = Store(PIXELS, shape, 0, BYTE)
        readers = self.readers[node.name]
        if readers and all(isinstance(reader, Product | Affine | Add | Activation | GlobalMean) for reader in readers):
            self.alias[node.name] = IMAGE
            return []
        return [self._put(None, IMAGE, (), node.name, Value(shape))]

    def _array(self, node: Node) -> list[tuple[int, Stage]]:
        """A node of `plq.runtime.array_nodes`; where it gives real numbers, what it reads is brought to these first."""
        place, value, found, inputs = (
            self._place[node.name],
            self.graph.values[node.name],
            list[tuple[int, Stage]](),
            [],
        )
        for name in node.inputs:
            root = self.root(name)
            if value.grid is None and self.stores[root].kind != REALS:
                real = f"{name}:real"
                if real not in self.stores:
                    self.stores[real] = Store(REALS, self.graph.values[name].shape)
                    found.append((place, Stage(None, root, (), real)))
                root = real
            inputs.append(root)
        self.stores[node.name] = stored(value)
        return [*found, (place, Stage(node, inputs[0], (), node.name, tuple(inputs[1:])))]

    def _grow(self, product: Product | None, given: str, node: Node) -> list[tuple[int, Stage]]:
        """A stage with all that can be taken in one go behind its first node, and pooling behind that."""
        steps: list[Step] = [] if product else [self._step(node, given)]
        last, pools = node, list[Node]()
        while not (isinstance(last, Activation) and last.grid):
            ahead = self._ahead(last)
            if not ahead:
                break
            pools = ahead[:-1]
            steps.append(self._step(ahead[-1], last.name))
            last = ahead[-1]
            self._taken |= {taken.name for taken in ahead}
        names = [f"{last.name}:{index}" for index in range(len(pools))] + [last.name]
        values = self.graph.values
        before = values[pools[0].inputs[0] if pools else last.name].shape
        first = self._put(product, given, tuple(steps), names[0], dataclasses.replace(values[last.name], shape=before))
        rest = [
            self._put(pool, name, (), to, dataclasses.replace(values[last.name], shape=values[pool.name].shape))
            for pool, name, to in zip(pools, names, names[1:], strict=False)
        ]
        place = self._place[last.name]
        return [(place, stage) for _, stage in (first, *rest)]

    def _ahead(self, last: Node) -> list[Node]:
        """What a stage takes in behind a node: one step, or pooling and a rounding that rises; empty: nothing."""
        found: list[Node] = []
        while len(self.readers[last.name]) == 1:
            (node,) = self.readers[last.name]
            found.append(node)
            if isinstance(node, MaxPool2x2 | MaxPool):
                last = node
            elif isinstance(node, Activation) and len(found) > 1:
                return found if node.grid and node.nonlinearity in RISING else []
            elif isinstance(node, Add):
                other = self._step(node, last.name).other
                return found if len(found) == 1 and self._place[other] < self._place[last.name] else []
            else:
                return found if len(found) == 1 and isinstance(node, Affine | Activation) else []
        return []

    def _step(self, node: Node, given: str) -> Step:
        assert isinstance(node, Affine | Add | Activation)
        if not isinstance(node, Add):
            return Step(node)
        return Step(node, node.inputs[1] if node.inputs[0] == given else node.inputs[0])

    def _put(
        self, node: Node | None, given: str, steps: tuple[Step, ...], output: str, value: Value
    ) -> tuple[int, Stage]:
        """A stage, and the store of its result."""
        self.stores[output] = stored(value)
        return self._place.get(output, 0), Stage(node, given, steps, output)

    def _rooted(self, stage: Stage) -> Stage:
        """The stage with the names under which what it reads is stored."""
        steps = tuple(dataclasses.replace(step, other=self.root(step.other)) for step in stage.steps)
        also = tuple(map(self.root, stage.also))
        return dataclasses.replace(stage, input=self.root(stage.input), steps=steps, also=also)


def window_of(node: MaxPool2x2 | MaxPool) -> tuple[int, int, int, int]:
    """Window, stride, padding above and on the left."""
    if isinstance(node, MaxPool2x2):
        return 2, 2, 0, 0
    return node.window, node.stride, node.padding[0][0], node.padding[1][0]
