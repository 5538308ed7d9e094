"""ONNX with values on a grid held as uint8 codes, and all others as real numbers."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import cast

import numpy as np
from onnx import TensorProto

from plq.exporters.translate import Function, Translator
from plq.exporters.units import UINT8
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.node import Node
from plq.runtime.nodes import Activation, MaxPool, MaxPool2x2

NUDGE = 2.0**-22


@dataclasses.dataclass(frozen=True)
class Codes:
    """A uint8 ONNX value that stands for (code - zero) * scale."""

    name: str
    scale: float
    zero: int


class Coded(Translator):
    """A frozen graph as an ONNX model with uint8 codes. Raises UserError if there is a grid that they cannot hold."""

    def __init__(self, graph: Graph, preprocessing: bool) -> None:
        super().__init__(graph, preprocessing)
        self.codes: dict[str, Codes] = {}  # by the name of a value
        for node in graph.nodes:
            if isinstance(node, Activation) and node.grid is not None:
                _check_codes(node, node.grid)

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

    def joined_codes(self, node: Node, joined: Callable[[list[str]], str]) -> bool:
        if self.graph.values[node.name].grid is None:
            return False
        codes = [self.codes[name] for name in node.inputs]
        self.codes[node.name] = dataclasses.replace(codes[0], name=joined([code.name for code in codes]))
        return True

    def activation(self, node: Activation) -> None:
        if node.grid is None:
            super().activation(node)
        else:
            self.codes[node.name] = self.coded(node, node.grid)

    def coded(self, node: Activation, grid: Grid) -> Codes:
        """The codes of an activation, from real numbers."""
        x = self.nonlinear(node, self.real(node.inputs[0]))
        if grid.levels is None:
            return self.quantize(self.prepared(node, grid, x), node.name, node.scale, -grid.offset, grid.codes - 1)
        for op, role in (("Div", "divisor"), ("Mul", "factor")):
            number = self.writer.constant(np.float32(getattr(node, role)), f"{node.name}/{role}")
            x = self.writer.add(op, [x, number], f"{node.name}/{op.lower()}")
        return self.nearest_levels(node, x, 1)

    def prepared(self, node: Activation, grid: Grid, x: str) -> str:
        """h(x) for a QuantizeLinear, which rounds half to even and which ONNX Runtime moves in front of max pooling.

        If half goes up, x is raised by `NUDGE` of the largest value, a few last bits: ties are then above the middle.
        Behind pooling the lower end of the codes is taken first: it changes nothing, and nothing is moved past it.
        """
        if node.rounding == "half_up":
            nudge = self.writer.constant(
                np.float32(NUDGE * np.abs(grid.integers).max() * node.scale), f"{node.name}/nudge"
            )
            x = self.writer.add("Add", [x, nudge], f"{node.name}/raised")
        if any(isinstance(other, MaxPool2x2 | MaxPool) and other.name in node.inputs for other in self.graph.nodes):
            lowest = self.writer.constant(np.float32(grid.offset * node.scale), f"{node.name}/lowest")
            x = self.writer.add("Max", [x, lowest], f"{node.name}/max")
        return x

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


def _check_codes(node: Activation, grid: Grid) -> None:
    """Raise UserError unless uint8 codes with a zero point, or uint8 levels, can hold the grid."""
    fits = -UINT8 <= grid.offset <= 0 if grid.levels is None else 0 <= grid.integers[0] <= grid.integers[-1] <= UINT8
    if not fits:
        found = f"integers from {grid.integers[0]} to {grid.integers[-1]}"
        raise node.fail(found, f"codes from 0 to {UINT8} with a zero point there, or such levels, in ONNX")


def largest_code(grid: Grid | None) -> int:
    """Of the uint8 values that hold a grid's codes, or its levels."""
    return 0 if grid is None else int(grid.integers[-1]) if grid.levels else grid.codes - 1
