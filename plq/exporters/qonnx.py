"""QONNX: a network in float with Quant and BipolarQuant nodes that say to how many bits, for qonnx and FINN.

    weights      BipolarQuant (two values of one magnitude), or Quant: signed, zero point 0
    activations  Relu and then Quant: unsigned, zero point 0; |x| or hard swish where the network has them

Scales are per tensor or per output channel; a batch norm is a Mul and an Add per channel. QONNX knows no levels between
integers: DoReFa's and SAWB's weights, odd multiples of half a step, are integers of one bit more. A grid with uneven
levels is, in weights, integers of as many bits as the largest needs, and in activations a MultiThreshold.
"""

import numpy as np
import onnx

from plq.exporters.translate import Translator, onnx_layout
from plq.runtime.grid import Grid
from plq.runtime.nodes import Activation, Product

DOMAIN, VERSION = "qonnx.custom_op.general", 1
ROUNDING = {"half_even": "ROUND", "half_up": "HALF_UP"}


class QONNX(Translator):
    """A frozen graph as a QONNX model."""

    def weights(self, node: Product) -> str:
        weights = super().weights(node)
        if node.grid is None:
            return weights
        scale = onnx_layout(self.graph.tensors[node.tensor("scale")] / np.float32(node.grid.multiple))
        scale = scale.reshape(()) if scale.size == 1 else scale
        low, high = int(node.grid.integers[0]), int(node.grid.integers[-1])
        if node.grid.codes == 2 and low == -high:
            magnitude = self.writer.constant(np.float32(high) * scale, node.tensor("scale"))
            return self.writer.add("BipolarQuant", [weights, magnitude], f"{node.name}/quant", domain=DOMAIN)
        bits, narrow = signed_bits(low, high)
        return self.quant(weights, f"{node.name}/quant", scale, 0, bits, signed=1, narrow=narrow, rounding_mode="ROUND")

    def nonlinear(self, node: Activation, x: str) -> str:
        """h(x); where quantization takes the part of the upper end of a clip, and of 0 as the lower one, just Relu."""
        if node.grid is None or node.grid.offset or node.nonlinearity not in ("identity", "relu", "clip"):
            return super().nonlinear(node, x)
        return self.writer.add("Relu", [x], f"{node.name}/relu")

    def activation(self, node: Activation) -> None:
        super().activation(node)
        if node.grid is not None:
            self.reals[node.name] = self.quantized(node, node.grid, self.reals[node.name])

    def quantized(self, node: Activation, grid: Grid, x: str) -> str:
        """The real numbers on the grid, from h(x)."""
        if grid.levels is None:
            mode = ROUNDING[node.rounding]
            scale = np.array(node.scale)
            return self.quant(x, node.name, scale, -grid.offset, grid.bits, signed=0, narrow=0, rounding_mode=mode)
        return self.threshold(node, grid, x)

    def threshold(self, node: Activation, grid: Grid, x: str) -> str:
        """A MultiThreshold node, which counts the thresholds reached: one that rises by n is there n times."""
        integers = grid.integers
        middles = (integers[:-1] + integers[1:]) / 2 * node.divisor / node.factor
        thresholds = np.repeat(middles, np.diff(integers)).astype(np.float32)[None]
        numbers = {"out_scale": node.scale, "out_bias": node.scale * float(integers[0]), "out_dtype": "FLOAT32"}
        inputs = [x, self.writer.constant(thresholds, f"{node.name}/thresholds")]
        return self.writer.add("MultiThreshold", inputs, node.name, domain=DOMAIN, **numbers)

    def quant(self, x: str, name: str, scale: np.ndarray, zero: float, bits: int, **attributes: int | str) -> str:
        """A Quant node: (round(clip(x / scale + zero)) - zero) * scale."""
        numbers = {"scale": scale, "zero": zero, "bits": bits}
        inputs = [self.writer.constant(np.array(n, np.float32), f"{name}/{role}") for role, n in numbers.items()]
        return self.writer.add("Quant", [x, *inputs], name, domain=DOMAIN, **attributes)


def signed_bits(low: int, high: int) -> tuple[int, int]:
    """The fewest bits of signed integers from ``low`` to ``high``, and 1 if the range is narrow: without the lowest."""
    bits = max(2, 1 + max(high, -low - 1).bit_length())
    return bits, int(low > -(2 ** (bits - 1)))


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes and QONNX data types of all values."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    return ModelWrapper(model).transform(InferShapes()).transform(InferDataTypes()).model
