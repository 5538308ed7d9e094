"""What every quantizer of weights or activations is: codes forward, a smooth surrogate backward."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from plq.checks import integer
from plq.errors import UserError
from plq.quant.quantized import Quantized, straight_through

FLOAT_BITS = 32  # "no quantization" in the field's W/A notation
NO_CODES = f"activations of {FLOAT_BITS} bits are not quantized: they have no integer codes"
Scales = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class WeightQuantizer(abc.ABC):
    """Quantizes a kernel ``[..., in, out]`` (HWIO for a 2-D convolution, IO for a dense layer).

    A new quantizer is a subclass with `quantize` and `surrogate`, and one line in `plq.quant.registry`.
    ``statistics`` are what the quantizer takes over a whole kernel (a mean, a maximum). They are an
    argument so that one kernel can be quantized on the grid of another: the input channels that a
    `concat` merge adds use the statistics of the channels that stay, so removal changes no weight.
    ``scales`` are learned along with the kernel, under the names ``scale_names``; many quantizers have none.
    ``granularities`` are what a field ``granularity`` allows, if there is one; the first is the default.
    """

    bits: int
    legal_bits: ClassVar[tuple[int, ...]]
    scale_names: ClassVar[tuple[str, ...]] = ()
    granularities: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        """Raises UserError for bits that the quantizer does not have."""
        object.__setattr__(self, "bits", _legal_bits(self, "weight_bits"))

    def initial_scales(self, kernel: Array) -> Scales:
        """Start values of the learned scales for a fresh kernel."""
        del kernel
        return {}

    def calibrate_scales(self, kernel: Array) -> Scales:
        """Scales for a kernel that was trained in float."""
        return self.initial_scales(kernel)

    def statistics(self, kernel: Array) -> Any:
        """What the grid of this kernel depends on; any pytree of arrays."""
        del kernel
        return ()

    @abc.abstractmethod
    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        """Codes, scale and offset of the kernel. Raises KeyError if a learned scale is missing."""

    @abc.abstractmethod
    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        """The function whose derivative stands in for that of the fake-quantized value."""

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

    def quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Quantized:
        raise ValueError("weights of 32 bits are not quantized: they have no integer codes")

    def surrogate(self, kernel: Array, scales: Scales, statistics: Any) -> Array:
        return kernel

    def fake_quantize(self, kernel: Array, scales: Scales | None = None, statistics: Any = None) -> Array:
        return kernel.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class ActivationQuantizer(abc.ABC):
    """A non-linearity and ``bits`` bits: quantizes activations ``[batch, ...]`` of any shape.

    A new one is a subclass with `quantize` and `surrogate`, and one line in `plq.quant.registry`. At 32 bits the
    non-linearity alone is left. ``scales`` are learned with the network's weights, under the names ``scale_names``;
    they start as `initial_scales` and are set from real images before training (`plq.layers.scales.calibrate`).
    """

    bits: int
    legal_bits: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)
    scale_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        """Raises UserError for bits that the quantizer does not have."""
        object.__setattr__(self, "bits", _legal_bits(self, "activation_bits"))

    @property
    def top_code(self) -> int:
        """2**bits - 1. Raises ValueError at 32 bits."""
        if self.bits == FLOAT_BITS:
            raise ValueError(NO_CODES)
        return 2**self.bits - 1

    def nonlinearity(self, x: Array) -> Array:
        """What is left of the activation at 32 bits."""
        return jax.nn.relu(x)

    def initial_scales(self) -> Scales:
        """The learned scales before any data was seen, float32 scalars."""
        return {}

    def calibrate_scales(self, x: Array) -> Scales:
        """The learned scales for activations like x, [batch, ...]."""
        del x
        return self.initial_scales()

    @abc.abstractmethod
    def quantize(self, x: Array, scales: Scales | None = None) -> Quantized:
        """Codes, scale and offset in the shape of x. Raises KeyError if a learned scale is missing."""

    @abc.abstractmethod
    def surrogate(self, x: Array, scales: Scales) -> Array:
        """The function whose derivative stands in for that of the fake-quantized value."""

    def __call__(self, x: Array, scales: Scales | None = None) -> Array:
        """float32 values ``quantize(x).dequantize()``, bit for bit, with the surrogate's gradient."""
        x = x.astype(jnp.float32)
        if self.bits == FLOAT_BITS:
            return self.nonlinearity(x)
        return straight_through(self.surrogate(x, scales or {}), self.quantize(x, scales).dequantize())


def _legal_bits(quantizer: WeightQuantizer | ActivationQuantizer, field: str) -> int:
    bits = integer(f"quant.{field}", quantizer.bits)
    if bits not in quantizer.legal_bits:
        allowed = ", ".join(map(str, quantizer.legal_bits))
        raise UserError(f"quant.{field}={bits}: {type(quantizer).__name__} allows {allowed}")
    return bits
