"""The products of an ONNX model with codes: in float, or on integers where that needs no rounding behind them.

On integer kernels they are computed if they are one matrix product of codes and weights (MatMulInteger), or if sums may
be cut off (`plq.exporters.saturation`). Else integers are multiplied in float32, where no sum can exceed 2**24: it is
exact as well. Only what is left, as a float first layer, adds up real numbers.
"""

import dataclasses

import numpy as np
from onnx import TensorProto

from plq.exporters.coded import Coded, Codes, largest_code
from plq.exporters.requantize import is_exact
from plq.exporters.saturation import window
from plq.exporters.translate import onnx_layout
from plq.exporters.units import INT8, has_integers, is_matrix, only_reader
from plq.runtime.graph import Graph
from plq.runtime.nodes import Affine, Conv, Dense, Product
from plq.runtime.product import integer_product

INTEGER, FLOAT = "uint8 x int8", "float"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """How a layer is computed: on operands "uint8 x int8", "uint8 x uint8" or "float", and if so, why.

    ``steps``, ``misplaced``: see `Steps` and `Requantization`.
    """

    layer: str
    operands: str
    reason: str = ""
    steps: int = 0
    off_by_one: int = 0


class Mixed(Coded):
    """A frozen graph as an ONNX model. ``kernels``: how each layer is computed. ``reasons``: by layer, why in float."""

    def __init__(self, graph: Graph, preprocessing: bool) -> None:
        super().__init__(graph, preprocessing)
        self.kernels: list[Kernel] = []
        self.reasons: dict[str, str] = {}

    @property
    def integer_layers(self) -> int:
        """How many of the layers so far are computed on integer kernels."""
        return sum(kernel.operands != FLOAT for kernel in self.kernels)

    def conv(self, node: Conv) -> None:
        self.product(node)

    def dense(self, node: Dense) -> None:
        self.product(node)

    def product(self, node: Product) -> None:
        """A product whose result is float, step by step as in the frozen network where its sums are exact."""
        result = self.on_integers(node)
        self.kernels.append(Kernel(node.name, INTEGER) if result else Kernel(node.name, FLOAT, self.reasons[node.name]))
        result = result or self.exact_product(node)
        if result:
            self.reals[node.name] = result
        else:
            self.float_product(node)

    def on_integers(self, node: Product) -> str:
        """The product on uint8 x int8 kernels; empty if there is none that needs no rounding behind it."""
        if not self.is_narrow(node):
            return ""
        return self.integer_matrix(node) if is_matrix(self.graph, node) else self.windowed(node)

    def is_narrow(self, node: Product) -> bool:
        """Whether uint8 x int8 kernels can add up the product of codes and integers exactly."""
        largest = largest_code(self.graph.values[node.inputs[0]].grid)
        return has_integers(self.graph, node) and is_exact(self.integers(node), largest)

    def integers(self, node: Product) -> np.ndarray:
        """Those of a quantized kernel, int16."""
        assert node.grid is not None
        return node.grid.integers[self.graph.tensors[node.tensor("kernel")]].astype(np.int16)

    def float_product(self, node: Product) -> None:
        """In real numbers, whose sums are rounded; the bias or batch norm that follows is in the weights."""
        reader = only_reader(self.graph, node.name)
        affine = reader if isinstance(reader, Affine) else None
        scale, bias, codes = np.ones(1, np.float32), "", self.codes.get(node.inputs[0])
        if affine is not None:
            scale, shift = (self.graph.tensors[affine.tensor(role)] for role in affine.roles())
            bias = self.writer.constant(shift, f"{node.name}/shift")
            self.inside.add(affine.name)
        if codes is not None:
            scale = scale * np.float32(codes.scale)
        if node.grid is None:
            kernel = onnx_layout(self.graph.tensors[node.tensor("kernel")] * scale)
            weights = self.writer.constant(kernel, node.tensor("kernel"))
        else:
            scale = scale * self.graph.tensors[node.tensor("scale")] / np.float32(node.grid.multiple)
            factor = self.writer.constant(onnx_layout(scale.astype(np.float32)), f"{node.name}/scale")
            weights = self.writer.add("Mul", [self.float_integers(node), factor], f"{node.name}/weights")
        x = self.reals[node.inputs[0]] if codes is None else self.unscaled(codes)
        self.reals[affine.name if affine else node.name] = self.multiply(node, x, weights, bias)

    def exact_product(self, node: Product) -> str:
        """Integers in float32 whose sums are exact in any order, and then what they are worth; empty if too large.

        ONNX Runtime would take the worth into the weights, were there nothing between; rounding integers does nothing.
        """
        if node.grid is None or node.inputs[0] not in self.codes:
            return ""
        plan = integer_product(self.graph, node)
        if len(plan.groups) > 1 or len(plan.groups[0]) > 1:
            return ""
        sums = self.multiply(node, self.unscaled(self.codes[node.inputs[0]]), self.float_integers(node))
        return self.worth(node, self.writer.add("Round", [sums], f"{node.name}/sums"))

    def float_integers(self, node: Product) -> str:
        """Those of a quantized kernel, stored in the smallest type that holds them."""
        assert node.grid is not None
        integers = onnx_layout(self.integers(node).astype(np.int8 if node.grid.largest <= INT8 else np.int16))
        weights = self.writer.constant(integers, node.tensor("kernel"))
        return self.writer.add("Cast", [weights], f"{node.name}/integers", to=TensorProto.FLOAT)

    def worth(self, node: Product, sums: str) -> str:
        """Real numbers, of sums of integers as float32."""
        (worth,) = integer_product(self.graph, node).multipliers
        rank = len(self.graph.values[node.name].shape)
        return self.writer.add("Mul", [sums, self.constant_per_channel(worth, rank, f"{node.name}/worth")], node.name)

    def integer_matrix(self, node: Product) -> str:
        """Sums as int32, turned into real numbers."""
        codes, rank = self.codes[node.inputs[0]], len(self.graph.values[node.name].shape)
        x = codes.name
        if rank > 1:
            x = self.writer.add("Transpose", [x], f"{node.name}/channels_last", perm=[0, 2, 3, 1])
            x = self.writer.add("Flatten", [x], f"{node.name}/flat", axis=1)
        kernel = self.integers(node).reshape(-1, node.features).astype(np.int8)
        inputs = [x, self.writer.constant(kernel, node.tensor("kernel")), self.scale_and_zero(codes)[1]]
        y = self.writer.add("MatMulInteger", inputs, f"{node.name}/sums")
        y = self.writer.add("Cast", [y], f"{node.name}/float", to=TensorProto.FLOAT)
        if rank > 1:
            axes = self.writer.constant(np.array([2, 3]), "image_axes")
            y = self.writer.add("Unsqueeze", [y, axes], f"{node.name}/image")
        return self.worth(node, y)

    def windowed(self, node: Product) -> str:
        """Sums as uint8, saturated where they decide nothing, turned into real numbers; empty if 256 are not enough."""
        lowest = window(self.graph, node)
        if lowest is None:
            return ""
        codes, ones = self.codes[node.inputs[0]], np.ones(node.features, np.float32)
        weights = self.operand(node, "kernel", onnx_layout(self.integers(node).astype(np.int8)), ones, 0)
        bias = self.operand(node, "bias", -lowest.astype(np.int32), ones * np.float32(codes.scale), 0)
        y = self.multiply(node, self.dequantized(codes), weights, bias)
        sums = self.quantize(y, f"{node.name}/sums", codes.scale, 0)
        y = self.writer.add("Cast", [sums.name], f"{node.name}/float", to=TensorProto.FLOAT)
        rank = len(self.graph.values[node.name].shape)
        low = self.constant_per_channel(lowest.astype(np.float32), rank, f"{node.name}/lowest")
        return self.worth(node, self.writer.add("Add", [y, low], f"{node.name}/integers"))

    def operand(self, node: Product, role: str, integers: np.ndarray, scale: np.ndarray, zero: int) -> str:
        """A constant operand with one scale per output channel, dequantized."""
        names = [
            self.writer.constant(integers, node.tensor(role)),
            self.writer.constant(scale, f"{node.tensor(role)}_scale"),
            self.writer.constant(np.full(scale.shape, zero, integers.dtype), f"{node.tensor(role)}_zero"),
        ]
        axis = 1 if integers.ndim == 2 else 0
        return self.writer.add("DequantizeLinear", names, f"{node.tensor(role)}/real", axis=axis)

    def unscaled(self, codes: Codes) -> str:
        """code - zero as float32. No DequantizeLinear: ONNX Runtime would quantize the float weights behind one."""
        x = self.writer.add("Cast", [codes.name], f"{codes.name}/float", to=TensorProto.FLOAT)
        if codes.zero:
            zero = self.writer.constant(np.float32(codes.zero), f"zero/{codes.zero}.0")
            x = self.writer.add("Sub", [x, zero], f"{codes.name}/integer")
        return x
