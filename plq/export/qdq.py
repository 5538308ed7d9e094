"""ONNX with QuantizeLinear and DequantizeLinear ("QDQ"), which ONNX Runtime runs on its uint8 x int8 kernels.

A product that begins a `Unit` is written so that ONNX Runtime makes one QLinearConv (or QGemm) of it and what follows,
with the integers of `plq.export.requantize`. All others are written in float, on the same weights and codes.
"""

import dataclasses
import itertools
from typing import cast

import numpy as np
from onnx import TensorProto

from plq.export.requantize import is_exact, requantize
from plq.export.steps import steps_of
from plq.export.translate import Function, Translator, onnx_layout
from plq.export.units import INT8, UINT8, Unit, find_units, fits_int8, only_reader
from plq.frozen.graph import Graph
from plq.frozen.grid import Grid
from plq.frozen.nodes import Activation, Affine, Conv, Dense, Node, Product

SIGNED_ZERO = 128


@dataclasses.dataclass(frozen=True)
class Codes:
    """A uint8 ONNX value that stands for (code - zero) * scale."""

    name: str
    scale: float
    zero: int


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


class QDQ(Translator):
    """A frozen graph as an ONNX model for integer kernels; ``kernels`` says how each layer is computed."""

    def __init__(self, graph: Graph, preprocessing: bool) -> None:
        super().__init__(graph, preprocessing)
        self.codes: dict[str, Codes] = {}
        self.kernels: list[Kernel] = []
        self.slack: dict[str, float] = {}  # by the name of an activation: one sum, in steps, if one is misplaced
        self.units: dict[str, Unit] = {}  # by the name of the activation
        self.reasons: dict[str, str] = {}  # by the name of the product
        for name, unit in find_units(graph).items():
            if isinstance(unit, str):
                self.reasons[name] = unit
            elif fits_int8(steps_of(graph, unit).kernel):
                self.units[unit.activation.name] = unit
            else:
                self.reasons[name] = "its weights do not fit into int8"
        self.inside = {node.name for unit in self.units.values() for node in unit.nodes[:-1]}

    def real(self, name: str) -> str:
        """Codes are dequantized anew for each reader: ONNX Runtime wants a DequantizeLinear per operand."""
        return self.reals[name] if name in self.reals else self.dequantized(self.codes[name])

    def dequantized(self, codes: Codes) -> str:
        return self.writer.add("DequantizeLinear", [codes.name, *self.scale_and_zero(codes)], f"{codes.name}/real")

    def quantize(self, x: str, name: str, scale: float, zero: float, most: int = UINT8) -> Codes:
        """Codes round(x / scale) + zero, from 0 to ``most``."""
        codes = Codes(name, scale, int(zero))
        y = self.writer.add("QuantizeLinear", [x, *self.scale_and_zero(codes)], name)
        return self.clipped(dataclasses.replace(codes, name=y), most)

    def scale_and_zero(self, codes: Codes) -> list[str]:
        scale = self.writer.constant(np.float32(codes.scale), f"scale/{codes.scale:.6g}")
        return [scale, self.writer.constant(np.uint8(codes.zero), f"zero/{codes.zero}")]

    def clipped(self, codes: Codes, most: int) -> Codes:
        if most >= UINT8:
            return codes
        ends = [self.writer.constant(np.uint8(end), f"code/{end}") for end in (0, most)]
        return dataclasses.replace(codes, name=self.writer.add("Clip", [codes.name, *ends], f"{codes.name}/clip"))

    def unchanged(self, node: Node, function: Function) -> None:
        codes = self.codes.get(node.inputs[0])
        if codes is None:
            super().unchanged(node, function)
        else:
            self.codes[node.name] = dataclasses.replace(codes, name=function(codes.name, np.uint8(codes.zero)))

    def conv(self, node: Conv) -> None:
        self.product(node)

    def dense(self, node: Dense) -> None:
        self.product(node)

    def product(self, node: Product) -> None:
        """A product in float, together with the bias or batch norm that follows it."""
        self.kernels.append(Kernel(node.name, "float", self.reasons[node.name]))
        reader = only_reader(self.graph, node.name)
        scale, bias, result = np.ones(1, np.float32), "", node.name
        if isinstance(reader, Affine):
            scale = self.graph.tensors[reader.tensor("scale")]
            bias = self.writer.constant(self.graph.tensors[reader.tensor("shift")], reader.tensor("shift"))
            result = reader.name
            self.inside.add(result)
        x = node.inputs[0]
        if x in self.codes:
            scale = scale * np.float32(self.codes[x].scale)
            x = self.unscaled(self.codes[x])
        else:
            x = self.reals[x]
        self.reals[result] = self.multiply(node, x, self.scaled_weights(node, scale), bias)

    def unscaled(self, codes: Codes) -> str:
        """code - zero as float32. No DequantizeLinear: ONNX Runtime would quantize the float weights behind one."""
        x = self.writer.add("Cast", [codes.name], f"{codes.name}/float", to=TensorProto.FLOAT)
        if codes.zero:
            zero = self.writer.constant(np.float32(codes.zero), f"zero/{codes.zero}.0")
            x = self.writer.add("Sub", [x, zero], f"{codes.name}/integer")
        return x

    def scaled_weights(self, node: Product, factor: np.ndarray) -> str:
        """Weights times a factor per channel; quantized ones are stored as integers, to be scaled once, at loading."""
        kernel, grid = self.graph.tensors[node.tensor("kernel")], node.grid
        if grid is None:
            return self.writer.constant(onnx_layout(kernel * factor), node.tensor("kernel"))
        integers = grid.integers[kernel].astype(np.int8 if grid.largest <= INT8 else np.int16)
        scale = self.graph.tensors[node.tensor("scale")] * factor / np.float32(grid.multiple)
        weights = self.writer.constant(onnx_layout(integers), node.tensor("kernel"))
        weights = self.writer.add("Cast", [weights], f"{node.name}/integers", to=TensorProto.FLOAT)
        scale = self.writer.constant(onnx_layout(scale.astype(np.float32)), node.tensor("scale"))
        return self.writer.add("Mul", [weights, scale], f"{node.name}/weights")

    def activation(self, node: Activation) -> None:
        if node.grid is None:
            super().activation(node)
        elif node.name in self.units:
            self.codes[node.name] = self.fused(self.units[node.name])
        else:
            self.codes[node.name] = self.coded(node, node.grid, self.nonlinear(node, self.real(node.inputs[0])))

    def coded(self, node: Activation, grid: Grid, x: str) -> Codes:
        """The codes of h(x), from real numbers."""
        if grid.levels is None:
            return self.quantize(x, node.name, node.scale, -grid.offset, grid.codes - 1)
        for op, role in (("Div", "divisor"), ("Mul", "factor")):
            number = self.writer.constant(np.float32(getattr(node, role)), f"{node.name}/{role}")
            x = self.writer.add(op, [x, number], f"{node.name}/{op.lower()}")
        return self.nearest_levels(node, x, 1)

    def nearest_levels(self, node: Activation, v: str, parts: int) -> Codes:
        """A grid's own integers in the place of codes: v, in ``parts``-ths of an integer, compared with all middles."""
        integers, terms = cast(Grid, node.grid).integers, []
        for low, high in itertools.pairwise(integers):
            middle = self.writer.constant(np.float32((low + high) * parts / 2), f"{node.name}/middle")
            term = self.writer.add("GreaterOrEqual", [v, middle], f"{node.name}/reached")
            term = self.writer.add("Cast", [term], f"{node.name}/step", to=TensorProto.FLOAT)
            if high - low != 1:
                height = self.writer.constant(np.float32(high - low), f"{node.name}/height")
                term = self.writer.add("Mul", [term, height], f"{node.name}/rise")
            terms.append(term)
        terms += [self.writer.constant(np.float32(integers[0]), f"{node.name}/lowest")] if integers[0] else []
        level = self.writer.add("Sum", terms, f"{node.name}/level")
        name = self.writer.add("Cast", [level], f"{node.name}/codes", to=TensorProto.UINT8)
        return Codes(name, node.scale, 0)

    def fused(self, unit: Unit) -> Codes:
        """The codes that a unit gives, computed by an integer kernel."""
        node, most = unit.activation, unit.grid.codes - 1
        codes = self.kernel_output(unit)
        for pool in unit.pools:
            codes = dataclasses.replace(codes, name=self.pooled(pool, codes.name))
        if unit.grid.levels:
            steps = self.writer.add("Cast", [codes.name], f"{node.name}/float", to=TensorProto.FLOAT)
            return self.nearest_levels(node, steps, 2)
        if unit.residual:
            terms = [self.dequantized(codes), self.real(unit.residual)]
            return self.quantize(self.writer.add("Add", terms, f"{node.name}/sum"), node.name, node.scale, 0, most)
        if unit.is_even:  # |x| as an operation that ONNX Runtime has on uint8
            magnitude = self.writer.add("LeakyRelu", [self.dequantized(codes)], f"{node.name}/abs", alpha=-1.0)
            return self.quantize(magnitude, node.name, node.scale, 0, most)
        return self.clipped(codes, most)

    def kernel_output(self, unit: Unit) -> Codes:
        """The integers behind the product, rounded and not yet clipped, with 0 in the middle if they are signed."""
        product, steps = unit.product, steps_of(self.graph, unit)
        codes = self.codes[product.inputs[0]]
        scale = unit.activation.scale / (2 if unit.grid.levels else 1)
        largest = largest_code(cast(Grid, self.graph.values[product.inputs[0]].grid))
        found = requantize(steps, largest, codes.scale, scale)
        zero, kind = (0, np.int8) if is_exact(found.kernel, largest) else (SIGNED_ZERO, np.uint8)
        taken, lost = int(steps.reached.sum()), int(found.misplaced.sum())
        self.kernels.append(Kernel(product.name, f"uint8 x {kind.__name__}", "", taken, lost))
        widest = steps.slope[found.misplaced > 0].max(initial=0)
        self.slack[unit.activation.name] = float(widest) / (2 if unit.grid.levels else 1)
        weights = self.operand(product, "kernel", onnx_layout(found.kernel + zero).astype(kind), found.scale, zero)
        bias = self.operand(product, "bias", found.bias, found.scale * np.float32(codes.scale), 0)
        result = self.multiply(product, self.dequantized(codes), weights, bias)
        middle = SIGNED_ZERO if unit.is_signed else -unit.grid.offset
        return self.quantize(result, f"{product.name}/steps", scale, middle)

    def operand(self, node: Product, role: str, integers: np.ndarray, scale: np.ndarray, zero: int) -> str:
        """A constant operand with one scale per output channel, dequantized."""
        names = [
            self.writer.constant(integers, node.tensor(role)),
            self.writer.constant(scale, f"{node.tensor(role)}_scale"),
            self.writer.constant(np.full(scale.shape, zero, integers.dtype), f"{node.tensor(role)}_zero"),
        ]
        axis = 1 if integers.ndim == 2 else 0
        return self.writer.add("DequantizeLinear", names, f"{node.tensor(role)}/real", axis=axis)


def largest_code(grid: Grid) -> int:
    """Of the uint8 values that hold a grid's codes, or its levels."""
    return int(grid.integers[-1]) if grid.levels else grid.codes - 1
