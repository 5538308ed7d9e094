"""ONNX with QuantizeLinear and DequantizeLinear ("QDQ"), which ONNX Runtime runs on its uint8 x int8 kernels.

A product that begins a `Unit` is written so that ONNX Runtime makes one QLinearConv (or QGemm) of it and what follows,
with the integers of `plq.exporters.requantize`. All others are written in float, on the same weights and codes.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from plq.exporters.coded import Codes, largest_code
from plq.exporters.mixed import INTEGER, Kernel, Mixed
from plq.exporters.requantize import is_exact, requantize
from plq.exporters.thresholds import Steps, steps_of
from plq.exporters.translate import onnx_layout
from plq.exporters.units import Unit, find_units, fits_int8
from plq.runtime.graph import Graph
from plq.runtime.nodes import Activation

NOTHING: Mapping[str, str] = MappingProxyType({})
WIDE_INTEGER, MIDDLE = "uint8 x uint8", 128


class QDQ(Mixed):
    """A frozen graph as an ONNX model for integer kernels. ``slack``: see `plq.exporters.check.Exported`.

    Args:
        in_float: products that are computed in float although they begin a unit, and why.
    """

    def __init__(self, graph: Graph, preprocessing: bool, in_float: Mapping[str, str] = NOTHING) -> None:
        super().__init__(graph, preprocessing)
        self.units: dict[str, Unit] = {}  # by the name of the activation
        self.steps: dict[str, Steps] = {}  # by the name of the product
        self.slack: dict[str, float] = {}
        for name, unit in (find_units(graph) | dict(in_float)).items():
            if isinstance(unit, str):
                self.reasons[name] = unit
                continue
            steps = steps_of(graph, unit)
            if fits_int8(steps.kernel):
                self.units[unit.activation.name], self.steps[name] = unit, steps
            else:
                self.reasons[name] = "its weights do not fit into int8"
        self.inside = {node.name for unit in self.units.values() for node in unit.nodes[:-1]}

    def activation(self, node: Activation) -> None:
        if node.name in self.units:
            self.codes[node.name] = self.fused(self.units[node.name])
        else:
            super().activation(node)

    def fused(self, unit: Unit) -> Codes:
        """The codes that a unit gives, computed by an integer kernel."""
        node, most = unit.activation, unit.grid.codes - 1
        codes = self.kernel_output(unit)
        if unit.residual:
            terms = [self.dequantized(codes), self.real(unit.residual)]
            added = self.writer.add("Add", terms, f"{node.name}/sum")
            codes = self.quantize(added, f"{node.name}/added", node.scale, 0)
        for pool in unit.pools:
            codes = dataclasses.replace(codes, name=self.pooled(pool, codes.name))
        if unit.grid.levels:
            steps = self.writer.add("Cast", [codes.name], f"{node.name}/float", to=TensorProto.FLOAT)
            return self.nearest_levels(node, steps, 2)
        if unit.is_even:  # |x| as an operation that ONNX Runtime has on uint8
            magnitude = self.writer.add("LeakyRelu", [self.dequantized(codes)], f"{node.name}/abs", alpha=-1.0)
            codes = self.quantize(magnitude, f"{node.name}/magnitude", node.scale, 0)
        return self.clipped(codes, most)

    def kernel_output(self, unit: Unit) -> Codes:
        """The integers behind the product, rounded and not yet clipped, with 0 in the middle if they are signed."""
        product, steps = unit.product, self.steps.pop(unit.product.name)
        codes = self.codes[product.inputs[0]]
        scale = unit.activation.scale / (2 if unit.grid.levels else 1)
        largest = largest_code(self.graph.values[product.inputs[0]].grid)
        found = requantize(steps, largest, codes.scale, scale)
        zero, kind = (0, np.int8) if is_exact(found.kernel, largest) else (MIDDLE, np.uint8)
        taken, lost = int(steps.reached.sum()), int(found.off_by_one.sum())
        self.kernels.append(Kernel(product.name, WIDE_INTEGER if zero else INTEGER, "", taken, lost))
        widest = steps.slope[found.off_by_one > 0].max(initial=0)
        self.slack[unit.activation.name] = float(widest) / (2 if unit.grid.levels else 1)
        weights = self.operand(product, "kernel", onnx_layout(found.kernel + zero).astype(kind), found.scale, zero)
        bias = self.operand(product, "bias", found.bias, found.scale * np.float32(codes.scale), 0)
        result = self.multiply(product, self.dequantized(codes), weights, bias)
        middle = MIDDLE if unit.is_signed else -unit.grid.offset
        return self.quantize(result, f"{product.name}/steps", scale, middle)
