"""Random legal graphs, small: convolutions of all kinds, residuals, pooling, quantizers of all kinds."""

import dataclasses

import numpy as np

from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.node import Node, Value
from plq.runtime.nodes import (
    Activation,
    Add,
    Affine,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    MaxPool,
    MaxPool2x2,
    Normalize,
    ZeroPadShortcut,
)

WEIGHTS = [
    None, Grid(1, -0.5), Grid(1, 0.0), Grid(2, -1.5), Grid(2, -2.0), Grid(2, 0.0, (-1, 0, 1)), Grid(4, -7.5),
    Grid(3, 0.0, (-4, -2, -1, 0, 1, 2, 4)), Grid(8, -127.5), Grid(8, -128.0), Grid(8, 0.0, (-300, 0, 7, 400)),
]  # fmt: skip
OUTPUTS = [
    Grid(1), Grid(2), Grid(3), Grid(4), Grid(8), Grid(2, -1.0), Grid(3, -5.0), Grid(2, 0.0, (0, 1, 2, 4)),
    Grid(4, 0.0, (0, 1, 2, 9)), Grid(3, 1.0), Grid(8, 0.0, (-300, 0, 1, 500)),
]  # fmt: skip
NONLINEARITIES = ["identity", "relu", "clip", "abs", "abs_clip", "hard_swish"]


class Maker:
    """Adds nodes behind the last one, with what decides given by a generator."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = (*self.random.integers(1, 10, 2).tolist(), int(self.random.choice([1, 3, 4])))
        per = self.shape[2] if self.random.random() < 0.5 else 1
        mean = self.random.choice([0.0, 127.0, 12.5], per)
        std = [256.0] * per if self.random.random() < 0.7 else self.random.uniform(50, 70, per).tolist()
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.values = {"image": Value(self.shape)}
        self.last = "image"
        self.put(Normalize, mean=tuple(mean.tolist()), std=tuple(float(np.float32(s)) for s in std))

    def pick(self, options):
        return options[int(self.random.integers(len(options)))]

    def put(self, kind: type[Node], tensors=None, inputs=None, **fields) -> None:
        node = kind(f"n{len(self.nodes)}", inputs or (self.last,), **fields)
        self.tensors |= {node.tensor(role): tensor for role, tensor in (tensors or {}).items()}
        self.nodes.append(node)
        self.values[node.name] = node.result([self.values[name] for name in node.inputs], self.tensors)
        self.last = node.name

    @property
    def value(self) -> Value:
        return self.values[self.last]

    def product(self, features: int, dense: bool = False) -> None:
        """A convolution or dense layer with weights and scales of some kind, and mostly a batch norm."""
        grid, channels = self.pick(WEIGHTS), self.value.shape[-1]
        fields: dict = {}
        if not dense:
            height, width = self.value.shape[:2]
            groups = self.pick([g for g in (1, 1, 2, channels) if channels % g == 0])
            features = max(1, features // groups) * groups
            size = tuple(int(self.random.integers(1, 4)) for _ in range(2))
            dilation = tuple(int(self.random.integers(1, 3)) for _ in range(2))
            spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
            pads = tuple(
                tuple(int(n) + max(0, -(-(span - side) // 2)) for n in self.random.integers(0, 3, 2))
                for span, side in zip(spans, (height, width), strict=True)
            )
            strides = tuple(int(self.random.integers(1, 3)) for _ in range(2))
            fields = {"kernel_size": size, "strides": strides, "padding": pads, "dilation": dilation, "groups": groups}
            channels //= groups
        shape = (channels, features) if dense else (*fields["kernel_size"], channels, features)
        if grid is None:
            tensors = {"kernel": self.random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)}
        else:
            codes = self.random.integers(0, grid.codes, shape).astype(np.uint8)
            scale_shape = [1 if self.random.random() < 0.7 else n for n in shape]
            scale_shape[-2] = 1
            unit = 1 / grid.largest / np.sqrt(np.prod(shape[:-1]))
            tensors = {"kernel": codes, "scale": self.random.uniform(unit, 2 * unit, scale_shape).astype(np.float32)}
        self.put(Dense if dense else Conv, tensors, features=features, grid=grid, **fields)
        if self.random.random() < 0.8:
            scale = self.random.choice([-1, 0, 1], features, p=[0.3, 0.05, 0.65]) * self.random.uniform(
                0.5, 3, features
            )
            shift = self.random.normal(0, 0.5, features)
            self.put(Affine, {"scale": scale.astype(np.float32), "shift": shift.astype(np.float32)})

    def activation(self) -> None:
        nonlinearity = self.pick(NONLINEARITIES)
        if self.random.random() < 0.1:
            return self.put(Activation, nonlinearity=nonlinearity)
        grid = self.pick(OUTPUTS)
        step = float(np.float32(1.5 / grid.largest))
        numbers = {"scale": step, "divisor": step, "factor": 1.0}
        if self.random.random() < 0.4:
            numbers = {"scale": float(np.float32(1 / grid.largest)), "divisor": 1.0, "factor": float(grid.largest)}
        return self.put(
            Activation, nonlinearity=nonlinearity, grid=grid, rounding=self.pick(["half_even", "half_up"]), **numbers
        )

    def pooling(self) -> None:
        height, width = self.value.shape[:2]
        if min(height, width) >= 2 and self.random.random() < 0.5:
            self.put(MaxPool2x2)
        else:
            window = int(self.random.integers(1, 4))
            pads = tuple(tuple(int(n) for n in self.random.integers(0, window, 2)) for _ in range(2))
            if min(height + sum(pads[0]), width + sum(pads[1])) >= window:
                self.put(MaxPool, window=window, stride=int(self.random.integers(1, 3)), padding=pads)

    def residual(self) -> None:
        """Add an earlier value of the same shape, or a shrunk one."""
        same = [name for name, value in self.values.items() if value.shape == self.value.shape and name != "image"]
        if self.random.random() < 0.8:
            inputs = [self.last, self.pick(same)]
            self.put(Add, inputs=tuple(inputs if self.random.random() < 0.5 else inputs[::-1]))
        elif len(self.value.shape) == 3:
            self.put(
                ZeroPadShortcut,
                stride=int(self.random.integers(1, 3)),
                channels=self.value.shape[2] + int(self.random.integers(4)),
            )


def random_graph(seed: int) -> Graph:
    """A legal graph: any seed gives one."""
    maker = Maker(seed)
    for _ in range(int(maker.random.integers(1, 4))):
        maker.product(int(maker.random.choice([1, 3, 8, 20, 40])))
        steps = (maker.residual, maker.pooling, maker.activation, maker.residual, maker.pooling)
        for step, often in zip(steps, (0.3, 0.4, 0.9, 0.15, 0.3), strict=True):
            if maker.random.random() < often:
                step()
    maker.put(GlobalMean) if maker.random.random() < 0.5 else maker.put(Flatten)
    maker.product(int(maker.random.integers(2, 12)), dense=True)
    if maker.value.grid is not None or maker.random.random() < 0.1:
        maker.put(Activation, nonlinearity="relu")
    graph = Graph(maker.shape, tuple(pruned(maker.nodes)), maker.tensors)
    graph = dataclasses.replace(graph, tensors=used_tensors(graph))
    graph.check()
    return graph


def pruned(nodes: list[Node]) -> list[Node]:
    """Without those that nothing reads, but for the last."""
    kept, read = [nodes[-1]], set(nodes[-1].inputs)
    for node in nodes[-2::-1]:
        if node.name in read:
            kept.append(node)
            read |= set(node.inputs)
    return kept[::-1]


def used_tensors(graph: Graph) -> dict[str, np.ndarray]:
    names = {node.tensor(role) for node in graph.nodes for role in node.roles()}
    return {name: tensor for name, tensor in graph.tensors.items() if name in names}
