"""What every quantizer of weights or activations is: codes forward, a smooth surrogate backward."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from plq.quant.quantized import Quantized, straight_through

FLOAT_BITS = 32  # "no quantization" in the field's W/A notation
Scales = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class WeightQuantizer:
    """Quantizes a kernel ``[..., in, out]`` (HWIO for a 2-D convolution, IO for a dense layer).

    A new quantizer is a subclass with `quantize` and `surrogate`, and one line in `plq.quant.registry`.
    ``statistics`` are what the quantizer takes over a whole kernel (a mean, a maximum). They are an
    argument so that one kernel can be quantized on the grid of another: the input channels that a
    `concat` merge adds use the statistics of the channels that stay, so removal changes no weight.
    ``scales`` are learned along with the kernel; most quantizers have none.
    """

    bits: int
    legal_bits: ClassVar[tuple[int, ...]]

    def initial_scales(self, shape: tuple[int, ...]) -> Scales:
        """Start values of the learned scales for a fresh kernel of this shape; {} if nothing is learned."""
        del shape
        return {}

    def statistics(self, kernel: Array) -> Any:
        """What the grid of this kernel depends on; any pytree of arrays."""
        raise NotImplementedError(f"{type(self).__name__}.statistics")

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        """Codes, scale and offset of the kernel. Raises KeyError if a learned scale is missing."""
        raise NotImplementedError(f"{type(self).__name__}.quantize")

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        """The function whose derivative stands in for that of the fake-quantized value."""
        raise NotImplementedError(f"{type(self).__name__}.surrogate")

    def fake_quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Array:
        """float32 values ``quantize(kernel).dequantize()``, bit for bit, with the surrogate's gradient."""
        kernel = kernel.astype(jnp.float32)
        scales = scales or {}
        statistics = self.statistics(kernel) if statistics is None else statistics
        forward = self.quantize(kernel, scales, statistics).dequantize()
        return straight_through(self.surrogate(kernel, scales, statistics), forward)


@dataclasses.dataclass(frozen=True)
class FloatWeights(WeightQuantizer):
    """32 bits: the kernel as it is."""

    legal_bits: ClassVar[tuple[int, ...]] = (FLOAT_BITS,)

    def statistics(self, kernel: Array) -> Any:
        return ()

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        raise ValueError("weights of 32 bits are not quantized: they have no integer codes")

    def fake_quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Array:
        return kernel.astype(jnp.float32)
