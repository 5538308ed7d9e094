"""A frozen graph in the operations of ONNX, in float: what both formats that build on ONNX have in common.

Images are [batch, channels, height, width] there; a frozen graph has the channels last.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from plq.exporters.arrays import ARRAYS, channels_last
from plq.exporters.writer import Writer
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.heads import offsets
from plq.runtime.node import Node, Pads
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
    Product,
    ZeroPadShortcut,
)

LOGITS = "logits"
NO_PADS: Pads = ((0, 0), (0, 0))
Function = Callable[[str, Any], str]  # of the name of an ONNX value and of the number that stands for 0 there


class Translator:
    """Translates node by node; each operation of a frozen graph has the method of its name.

    ``preprocessing``: the model takes uint8 pixels [batch, height, width, channels] and normalizes them itself.
    Without it takes what the graph's `Normalize` gives, float32 [batch, channels, height, width].
    """

    def __init__(self, graph: Graph, preprocessing: bool) -> None:
        self.graph, self.preprocessing = graph, preprocessing
        self.writer = Writer()
        self.reals: dict[str, str] = {}  # by the name of a value: the ONNX value that holds it as real numbers
        self.inside: set[str] = set()  # nodes that are written together with another one

    def model(
        self, batch: int | str, properties: dict[str, str], domains: dict[str, int] | None = None
    ) -> onnx.ModelProto:
        """The graph as an ONNX model for batches of this size, or of any size under this name."""
        image = self.writer.name(IMAGE)
        for node in self.graph.nodes:
            if node.name not in self.inside:
                self.translate(node)
        shape_out = self.graph.output_shape
        self.writer.rename(channels_last(self, self.real(self.graph.output), len(shape_out)), LOGITS)
        height, width, channels = self.graph.image_shape
        kind, shape = TensorProto.FLOAT, [batch, channels, height, width]
        if self.preprocessing:
            kind, shape = TensorProto.UINT8, [batch, height, width, channels]
        given = helper.make_tensor_value_info(image, kind, shape)
        result = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, *shape_out])
        return self.writer.model(given, [result, *self.heads(batch)], properties, domains)

    def heads(self, batch: int | str) -> list[onnx.ValueInfoProto]:
        """Each of several outputs by its name, cut out of the flat one."""
        found = []
        for head, start in zip(self.graph.heads, offsets(self.graph.heads), strict=True):
            fields = {"starts": [start], "ends": [start + head.size], "axes": [1]}
            cut = [self.writer.constant(np.array(n, np.int64), f"{head.name}/{role}") for role, n in fields.items()]
            x = self.writer.add("Slice", [LOGITS, *cut], f"{head.name}/flat")
            shape = self.writer.constant(np.array([0, *head.shape], np.int64), f"{head.name}/shape")
            name = self.writer.add("Reshape", [x, shape], head.name)
            found.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *head.shape]))
        return found

    def translate(self, node: Node) -> None:
        """A node of `plq.runtime.array_nodes` by its function there, any other by the method of its name."""
        if node.op in ARRAYS:
            ARRAYS[node.op](self, node)
        else:
            getattr(self, node.op)(node)

    def joined_codes(self, node: Node, joined: Callable[[list[str]], str]) -> bool:
        """Whether a node of several inputs was put together from codes instead of real numbers."""
        return False

    def real(self, name: str) -> str:
        """The ONNX value that holds a value of the graph as real numbers."""
        return self.reals[name]

    def unchanged(self, node: Node, function: Function) -> None:
        """A node that moves numbers about and leaves them as they are."""
        self.reals[node.name] = function(self.real(node.inputs[0]), np.float32(0))

    def normalize(self, node: Normalize) -> None:
        x = IMAGE
        if self.preprocessing:
            x = self.writer.add("Cast", [x], f"{node.name}/float", to=TensorProto.FLOAT)
            for op, role in (("Sub", "mean"), ("Div", "std")):
                numbers = self.writer.constant(np.array(getattr(node, role), np.float32), f"{node.name}/{role}")
                x = self.writer.add(op, [x, numbers], f"{node.name}/{op.lower()}")
            x = self.writer.add("Transpose", [x], node.name, perm=[0, 3, 1, 2])
        self.reals[node.name] = x

    def conv(self, node: Conv) -> None:
        self.reals[node.name] = self.multiply(node, self.real(node.inputs[0]), self.weights(node))

    def dense(self, node: Dense) -> None:
        self.reals[node.name] = self.multiply(node, self.real(node.inputs[0]), self.weights(node))

    def weights(self, node: Product) -> str:
        """The ONNX value that holds the weights as real numbers, in ONNX's layout."""
        return self.writer.constant(onnx_layout(self.graph.kernel(node)), node.tensor("kernel"))

    def multiply(self, node: Product, x: str, weights: str, bias: str = "") -> str:
        """The convolution or matrix product of two ONNX values."""
        inputs = [x, weights, *([bias] if bias else [])]
        if not isinstance(node, Conv):
            return self.writer.add("Gemm" if bias else "MatMul", inputs, node.name)
        return self.writer.add(
            "Conv",
            inputs,
            node.name,
            kernel_shape=node.kernel_size,
            strides=node.strides,
            pads=flat_pads(node.padding),
            dilations=node.dilation,
            group=node.groups,
        )

    def affine(self, node: Affine) -> None:
        x = self.real(node.inputs[0])
        rank = len(self.graph.values[node.name].shape)
        for op, role in (("Mul", "scale"), ("Add", "shift")):
            numbers = self.graph.tensors[node.tensor(role)]
            if not np.all(numbers == (role == "scale")):
                x = self.writer.add(op, [x, self.constant_per_channel(numbers, rank, node.tensor(role))], node.name)
        self.reals[node.name] = x

    def constant_per_channel(self, numbers: np.ndarray, rank: int, name: str) -> str:
        """A constant that broadcasts along the channels of values of ``rank`` axes, the batch not counted."""
        shape = (1, -1, 1, 1) if rank == 3 else (1,) * rank + (-1,)
        return self.writer.constant(numbers.reshape(shape), name)

    def add(self, node: Add) -> None:
        self.reals[node.name] = self.writer.add("Add", [self.real(name) for name in node.inputs], node.name)

    def activation(self, node: Activation) -> None:
        """h(x); what puts it on a grid is each format's own."""
        self.reals[node.name] = self.nonlinear(node, self.real(node.inputs[0]))

    def nonlinear(self, node: Activation, x: str) -> str:
        """h(x), as `Activation` has it."""
        ops = {"relu": ["Relu"], "abs": ["Abs"], "abs_clip": ["Abs"], "hard_swish": ["HardSwish"]}
        for op in ops.get(node.nonlinearity, []):
            x = self.writer.add(op, [x], f"{node.name}/{op.lower()}")
        if "clip" in node.nonlinearity:
            ends = [self.writer.constant(np.float32(end), f"clip/{end}") for end in (0, 1)]
            x = self.writer.add("Clip", [x, *ends], f"{node.name}/clip")
        return x

    def halve(self, node: MaxPool2x2) -> None:
        self.unchanged(node, lambda x, zero: self.pooled(node, x))

    def max_pool(self, node: MaxPool) -> None:
        self.unchanged(node, lambda x, zero: self.pooled(node, x))

    def pooled(self, node: MaxPool2x2 | MaxPool, x: str) -> str:
        """The maxima of an ONNX value."""
        window, stride, pads = (
            (2, 2, NO_PADS) if isinstance(node, MaxPool2x2) else (node.window, node.stride, node.padding)
        )
        return self.writer.add(
            "MaxPool", [x], node.name, kernel_shape=[window] * 2, strides=[stride] * 2, pads=flat_pads(pads)
        )

    def global_mean(self, node: GlobalMean) -> None:
        x = self.writer.add("GlobalAveragePool", [self.real(node.inputs[0])], f"{node.name}/pool")
        self.reals[node.name] = self.writer.add("Flatten", [x], node.name, axis=1)

    def flatten(self, node: Flatten) -> None:
        shape = self.graph.values[node.inputs[0]].shape

        def flat(x: str, zero: Any) -> str:
            if len(shape) == 3 and shape[0] * shape[1] > 1:
                x = self.writer.add("Transpose", [x], f"{node.name}/channels_last", perm=[0, 2, 3, 1])
            return self.writer.add("Flatten", [x], node.name, axis=1)

        self.unchanged(node, flat)

    def shrink(self, node: ZeroPadShortcut) -> None:
        channels = self.graph.values[node.inputs[0]].shape[2]
        before = (node.channels - channels) // 2
        pads = [0, before, 0, 0, 0, node.channels - channels - before, 0, 0]
        cut = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3], "steps": [node.stride] * 2}

        def shrunk(x: str, zero: Any) -> str:
            how = [self.writer.constant(np.array(n, np.int64), f"{node.name}/{role}") for role, n in cut.items()]
            x = self.writer.add("Slice", [x, *how], f"{node.name}/slice")
            ends = self.writer.constant(np.array(pads, np.int64), f"{node.name}/pads")
            return self.writer.add("Pad", [x, ends, self.writer.constant(zero, f"{node.name}/zero")], node.name)

        self.unchanged(node, shrunk)


def onnx_layout(kernel: np.ndarray) -> np.ndarray:
    """[height, width, in, out] -> [out, in, height, width]; a dense layer's [in, out] stays."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)) if kernel.ndim == 4 else kernel


def flat_pads(padding: Pads) -> list[int]:
    """((top, bottom), (left, right)) -> [top, left, bottom, right]."""
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]
