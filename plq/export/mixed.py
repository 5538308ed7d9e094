"""The products of an ONNX model with codes: in float, or on integers where that needs no rounding behind them.

In float the weights are stored as integers, and scaled once, when the model is loaded. On integers they are computed if
they are one matrix product of codes and weights (MatMulInteger), or if sums may be cut off (`plq.export.window`).
"""

import dataclasses

import numpy as np
from onnx import TensorProto

from plq.export.coded import Coded, Codes, largest_code
from plq.export.requantize import is_exact
from plq.export.translate import onnx_layout
from plq.export.units import INT8, has_integers, is_matrix, only_reader
from plq.export.window import window
from plq.frozen.graph import Graph
from plq.frozen.nodes import Affine, Conv, Dense, Product

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
    misplaced: int = 0


class Mixed(Coded):
    """A frozen graph as an ONNX model. ``kernels``: how each layer is computed. ``reasons``: by layer, why in float."""

    def __init__(self, graph: Graph, preprocessing: bool) -> None:
        super().__init__(graph, preprocessing)
        self.kernels: list[Kernel] = []
        self.reasons: dict[str, str] = {}

    def conv(self, node: Conv) -> None:
        self.product(node)

    def dense(self, node: Dense) -> None:
        self.product(node)

    def product(self, node: Product) -> None:
        """A product whose result is float, together with the bias or batch norm that follows it."""
        reader = only_reader(self.graph, node.name)
        affine = reader if isinstance(reader, Affine) else None
        name = affine.name if affine else node.name
        self.inside.add(name)
        if not self.is_narrow(node):
            result = ""
        elif is_matrix(self.graph, node):
            result = self.integer_matrix(node, affine)
        else:
            result = self.windowed(node, affine)
        self.kernels.append(Kernel(node.name, INTEGER) if result else Kernel(node.name, FLOAT, self.reasons[node.name]))
        self.reals[name] = result or self.float_product(node, affine)

    def is_narrow(self, node: Product) -> bool:
        """Whether uint8 x int8 kernels can add up the product of codes and integers exactly."""
        largest = largest_code(self.graph.values[node.inputs[0]].grid)
        return has_integers(self.graph, node) and is_exact(self.integers(node), largest)

    def integers(self, node: Product) -> np.ndarray:
        """Those of a quantized kernel, int16."""
        assert node.grid is not None
        return node.grid.integers[self.graph.tensors[node.tensor("kernel")]].astype(np.int16)

    def scale_and_shift(self, node: Product, affine: Affine | None) -> tuple[np.ndarray, np.ndarray | None]:
        """What integers of the kernel and of the input, or real numbers, are multiplied with, and what is added."""
        scale, shift = np.ones(1, np.float32), None
        if affine is not None:
            scale, shift = (self.graph.tensors[affine.tensor(role)] for role in affine.roles())
        if node.inputs[0] in self.codes:
            scale = scale * np.float32(self.codes[node.inputs[0]].scale)
        if node.grid is not None:
            scale = scale * self.graph.tensors[node.tensor("scale")] / np.float32(node.grid.multiple)
        return scale.astype(np.float32), shift

    def float_product(self, node: Product, affine: Affine | None) -> str:
        """Quantized weights are stored as integers; they are scaled once, when the model is loaded."""
        scale, shift = self.scale_and_shift(node, affine)
        bias = "" if shift is None else self.writer.constant(shift, f"{node.name}/shift")
        if node.grid is None:
            kernel = onnx_layout(self.graph.tensors[node.tensor("kernel")] * scale)
            weights = self.writer.constant(kernel, node.tensor("kernel"))
        else:
            integers = onnx_layout(self.integers(node).astype(np.int8 if node.grid.largest <= INT8 else np.int16))
            weights = self.writer.constant(integers, node.tensor("kernel"))
            weights = self.writer.add("Cast", [weights], f"{node.name}/integers", to=TensorProto.FLOAT)
            factor = self.writer.constant(onnx_layout(scale), f"{node.name}/scale")
            weights = self.writer.add("Mul", [weights, factor], f"{node.name}/weights")
        codes = self.codes.get(node.inputs[0])
        return self.multiply(node, self.unscaled(codes) if codes else self.reals[node.inputs[0]], weights, bias)

    def integer_matrix(self, node: Product, affine: Affine | None) -> str:
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
        scale, shift = self.scale_and_shift(node, affine)
        y = self.writer.add("Mul", [y, self.writer.constant(scale.reshape(-1), f"{node.name}/scale")], node.name)
        if shift is not None:
            y = self.writer.add("Add", [y, self.writer.constant(shift, f"{node.name}/shift")], node.name)
        if rank > 1:
            axes = self.writer.constant(np.array([2, 3]), "image_axes")
            y = self.writer.add("Unsqueeze", [y, axes], node.name)
        return y

    def windowed(self, node: Product, affine: Affine | None) -> str:
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
        scale, shift = self.scale_and_shift(node, affine)
        shift = (0 if shift is None else shift) + lowest * scale.reshape(-1).astype(np.float64)
        rank = len(self.graph.values[node.name].shape)
        for op, numbers in (("Mul", ones * scale.reshape(-1)), ("Add", shift.astype(np.float32))):
            factor = self.constant_per_channel(numbers, rank, f"{node.name}/{op.lower()}")
            y = self.writer.add(op, [y, factor], node.name)
        return y

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
