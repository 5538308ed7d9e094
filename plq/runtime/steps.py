"""The steps that a trace keeps whole (`plq.layers.opaque`) as nodes: quantizers, batch norm, plq's own operations."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from plq.errors import UserError
from plq.layers.opaque import Step
from plq.quant.base import FLOAT_BITS, WeightQuantizer
from plq.quant.quantized import Quantized
from plq.runtime.activations import activation_fields
from plq.runtime.builder import Builder, Symbol
from plq.runtime.grid import Grid
from plq.runtime.nodes import NODES, Activation, Affine


@dataclasses.dataclass(frozen=True)
class QuantizedKernel:
    """Weights of a layer at ``path``. ``codes`` and ``scale``: None where they are not quantized; see `Product`."""

    path: str
    real: np.ndarray
    grid: Grid | None = None
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None

    @property
    def tensors(self) -> dict[str, Any]:
        """The tensors of a node with this kernel, by role, and its grid."""
        if self.grid is None:
            return {"grid": None, "kernel": self.real}
        return {"grid": self.grid, "kernel": self.codes, "scale": self.scale}

    def reshaped(self, shape: tuple[int, ...]) -> "QuantizedKernel":
        """With axes of length 1 put in front."""
        front = (1,) * (len(shape) - self.real.ndim)
        lead: Callable[[Any], Any] = lambda x: None if x is None else x.reshape(*front, *x.shape)
        return dataclasses.replace(self, real=lead(self.real), codes=lead(self.codes), scale=lead(self.scale))


def take_step(builder: Builder, step: Step, leaves: list[Any]) -> Any:
    """The result of a step: a `Symbol`, or a `QuantizedKernel`."""
    operands = jax.tree.unflatten(step.tree, leaves)
    if step.kind != "kernel" and not any(isinstance(leaf, Symbol) for leaf in leaves):
        return step.function(*operands)
    return {"kernel": _kernel, "activation": _activation, "batch_norm": _batch_norm}.get(step.kind, _operation)(
        builder, step, *operands
    )


def _kernel(builder: Builder, step: Step, kernel: Any, scales: dict[str, Any]) -> QuantizedKernel:
    if isinstance(kernel, Symbol):
        raise builder.fail("a kernel that depends on the images", "one of variables alone")
    quantizer: WeightQuantizer = step.options
    kernel = np.asarray(kernel)
    if quantizer.bits == FLOAT_BITS:
        return QuantizedKernel(step.path, kernel)
    found: Any = jax.device_get(_quantize(kernel, scales, quantizer))
    offsets, levels = np.unique(found.offset), found.levels
    if len(offsets) != 1:
        raise UserError(f"{step.path}: found {len(offsets)} offsets, allowed one for the whole kernel")
    grid = Grid(quantizer.bits, float(offsets[0]), None if levels is None else tuple(map(int, levels)))
    scale = found.scale.reshape((1,) * (kernel.ndim - found.scale.ndim) + found.scale.shape)
    return QuantizedKernel(step.path, np.asarray(found.dequantize()), grid, found.codes, scale)


@partial(jax.jit, static_argnums=2)
def _quantize(kernel: Any, scales: Any, quantizer: WeightQuantizer) -> Quantized:
    """Compiled, as in the network."""
    return quantizer.quantize(kernel, scales)


def _activation(builder: Builder, step: Step, x: Symbol, scales: dict[str, Any]) -> Symbol:
    fields = activation_fields(step.options, scales)
    return builder.symbol(builder.append(Activation, "act", [builder.name_of(x)], path=step.path, **fields))


def _batch_norm(builder: Builder, step: Step, x: Symbol, leaves: dict[str, Any]) -> Symbol:
    """Scale and shift of batch norm with its statistics, folded in float64."""
    channels, epsilon = x.shape[-1], step.options["epsilon"]
    number = lambda name, default: np.asarray(leaves.get(name, np.full(channels, default)), np.float64)
    scale = number("scale", 1.0) / np.sqrt(number("var", 1.0) + epsilon)
    shift = number("bias", 0.0) - number("mean", 0.0) * scale
    name = builder.append(Affine, "norm", [builder.name_of(x)], path=step.path, scale=scale, shift=shift)
    return builder.symbol(name)


def batch_norm(x: Any, leaves: dict[str, Any], epsilon: float) -> Any:
    """Batch norm over the last axis with its running statistics, as Flax computes it."""
    scale = jax.lax.rsqrt(leaves["var"] + epsilon) * leaves.get("scale", 1.0)
    return (x - leaves["mean"]) * scale + leaves.get("bias", 0.0)


def _operation(builder: Builder, step: Step, x: Symbol) -> Symbol:
    """An operation of `plq.layers.operations`: the node of its name."""
    options = dict(step.options)
    if "padding" in options:
        sizes, strides = (options["window"],) * 2, (options["stride"],) * 2
        options["padding"] = explicit_padding(options["padding"], x.shape, sizes, strides)
    return builder.on(x, NODES[step.kind], step.kind, **options)


def explicit_padding(padding: Any, shape: tuple[int, ...], spans: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Zeros before and after height and width, of a padding given like that or as "SAME" or "VALID".

    Args:
        shape: [batch, height, width, channels] of the input. spans: of the (dilated) kernel or window.
    """
    pads = jax.lax.padtype_to_pads(shape[1:3], spans, strides, padding) if isinstance(padding, str) else padding
    return tuple((int(before), int(after)) for before, after in pads)
