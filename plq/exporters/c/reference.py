"""A plan in NumPy: the bits that the C gives, at every stage. For tests, and for the expected logits of NAME_test.c."""

from typing import cast

import numpy as np

from plq.exporters.c import chain
from plq.exporters.c.array_reference import compute
from plq.exporters.c.families import REAL, integers_of
from plq.exporters.c.geometry import convolution_of, taps_of
from plq.exporters.c.plan import PIXELS, REALS, Plan, Stage, window_of
from plq.exporters.c.product import Ready, kernel4, ready
from plq.runtime.array_nodes import ARRAY_NODES, ArithmeticConstant
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.node import Node
from plq.runtime.nodes import GlobalMean, MaxPool, MaxPool2x2, Normalize, Product, ZeroPadShortcut

Float = np.float32


class Reference:
    """Runs a plan on images, uint8 [batch, *image_shape]."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.plan = graph, Plan(graph)
        self.ready = {s.output: ready(self.plan, s) for s in self.plan.stages if isinstance(s.node, Product)}

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What is stored of each value: integers on a grid (not less their base), or float32."""
        values: dict[str, np.ndarray] = {IMAGE: images}
        with np.errstate(all="ignore"):
            for stage in self.plan.stages:
                values[stage.output] = self._result(stage, values)
        return values

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 [batch, classes]."""
        return self.run(images)[self.plan.output].reshape(len(images), *self.graph.output_shape)

    def _real(self, name: str, values: dict[str, np.ndarray]) -> np.ndarray:
        store, x = self.plan.stores[name], values[name]
        if store.kind == PIXELS:
            node = cast(Normalize, self.graph.nodes[0])
            return (x.astype(Float) - np.array(node.mean, Float)) / np.array(node.std, Float)
        return x if store.kind == REALS else x.astype(Float) * Float(store.scale)

    def _result(self, stage: Stage, values: dict[str, np.ndarray]) -> np.ndarray:
        node, x = stage.node, values[stage.input]
        if isinstance(node, Product):
            y = self._product(stage, values)
        elif node is None:
            y = self._real(stage.input, values)
            if stage.steps:
                y = y.reshape(len(y), *self.graph.values[stage.steps[0].node.inputs[0]].shape)
        elif isinstance(node, GlobalMean):
            return self._mean(self._real(stage.input, values))
        elif isinstance(node, ARRAY_NODES):
            return self._array(node, [values[name] for name in (stage.input, *stage.also)])
        elif isinstance(node, ZeroPadShortcut):
            pad = (node.channels - x.shape[-1]) // 2
            return np.pad(
                x[:, :: node.stride, :: node.stride], [(0, 0)] * 3 + [(pad, node.channels - x.shape[-1] - pad)]
            )
        else:
            assert isinstance(node, MaxPool2x2 | MaxPool)
            height, width, _ = self.plan.stores[stage.output].shape
            return _pool(x, *window_of(node), (height, width))
        others = {step.other: self._real(step.other, values) for step in stage.steps if step.other}
        others = {name: other.reshape(y.shape) for name, other in others.items()}
        y = chain.apply(self.graph, stage.steps, y, others)
        return y.astype(np.int64) if self.plan.stores[stage.output].kind not in (REALS,) else y

    def _array(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        """Of values in the shapes that the node reads, which a `Reshape` before it may have changed."""
        shapes = [self.graph.values[name].shape for name in node.inputs]
        given = [x.reshape(len(x), *shape) for x, shape in zip(inputs, shapes, strict=True)]
        constant = self.graph.tensors[node.tensor("constant")] if isinstance(node, ArithmeticConstant) else None
        return compute(node, given, constant)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        pixels = x.reshape(len(x), -1, x.shape[-1])
        share, total = Float(1 / pixels.shape[1]), np.zeros_like(pixels[:, 0])
        for index in range(pixels.shape[1]):
            total = total + pixels[:, index] * share
        return total

    def _product(self, stage: Stage, values: dict[str, np.ndarray]) -> np.ndarray:
        made, node = self.ready[stage.output], cast(Product, stage.node)
        shape = self.graph.values[node.inputs[0]].shape
        as_image = lambda x: x.reshape(len(x), *(shape if len(shape) == 3 else (1, 1, *shape)))
        out = (len(values[IMAGE]), *self.graph.values[node.name].shape)
        if made.coding.family == REAL:
            x = as_image(self._real(stage.input, values))
            return _sums(made, x, self.graph.kernel(node), (1, 1, 1, 1))[0].reshape(out)
        x = as_image(values[stage.input]).astype(np.int64)
        if self.plan.stores[stage.input].kind == PIXELS:
            pad = made.window.pad
            x, bias = x - pad, made.bias
            weights = integers_of(self.graph, node)
            (sums,) = _sums(made, x, weights.astype(np.int64), (1, 1, 1, 1))
            sums = sums + pad * kernel4(weights).astype(np.int64).sum((0, 1, 2))
            sums = sums + (0 if bias is None else bias[0])
            y = sums.astype(Float) * made.multipliers[0]
            return (y if made.offset is None else y + made.offset).reshape(out)
        scales = self.graph.tensors[node.tensor("scale")].shape
        weights = integers_of(self.graph, node).astype(np.int64)
        parts = _sums(made, x, weights, scales)
        y = parts[0].astype(Float) * made.multipliers[0]
        for sums, worth in zip(parts[1:], made.multipliers[1:], strict=True):
            y = y + sums.astype(Float) * worth
        return y.reshape(out)


def _sums(made: Ready, x: np.ndarray, kernel: np.ndarray, scales: tuple[int, ...]) -> list[np.ndarray]:
    """Of each part: the sum over its positions and channels, one product after the other, in the dtype of x."""
    conv, kernel = convolution_of(made.node), kernel4(kernel)
    (top, bottom), (left, right) = conv.padding
    x = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    height, width = made.window.out_height, made.window.out_width
    per_group, features = x.shape[-1] // conv.groups, conv.features // conv.groups
    found = []
    for taps in taps_of(made.node, scales):
        total = np.zeros((len(x), height, width, conv.features), x.dtype)
        for row, column in taps.positions:
            down, right_of = row * conv.dilation[0], column * conv.dilation[1]
            rows = slice(down, down + (height - 1) * conv.strides[0] + 1, conv.strides[0])
            columns = slice(right_of, right_of + (width - 1) * conv.strides[1] + 1, conv.strides[1])
            pixels = x[:, rows, columns]
            for channel in range(per_group):
                own = np.repeat(pixels[..., channel::per_group], features, -1)
                total = total + own * kernel[row, column, channel]
        found.append(total)
    return found


def _pool(x: np.ndarray, window: int, stride: int, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    least = -np.inf if x.dtype == Float else np.iinfo(np.int64).min
    height, width = ((n - 1) * stride + window for n in size)
    padded = np.full((len(x), height, width, x.shape[-1]), least, x.dtype)
    inside = padded[:, top : top + x.shape[1], left : left + x.shape[2]]
    inside[:] = x[:, : inside.shape[1], : inside.shape[2]]
    result = np.full((len(x), *size, x.shape[-1]), least, x.dtype)
    for i in range(window):
        for j in range(window):
            part = padded[:, i : i + (size[0] - 1) * stride + 1 : stride, j : j + (size[1] - 1) * stride + 1 : stride]
            result = np.maximum(result, part)
    return result
