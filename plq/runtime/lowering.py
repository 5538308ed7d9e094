"""Writes a network down: it is run once on a symbol, with units that append nodes instead of computing."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from plq.errors import UserError
from plq.layers.factory import LayerFactory
from plq.layers.unit import Unit
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, WeightQuantizer
from plq.quant.quantized import Quantized
from plq.runtime.activations import activation_fields
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.grid import Grid
from plq.runtime.nodes import NODES, Activation, Add, Affine, Conv, Dense, Node, Normalize, Pads

READ = {
    "features", "kernel_size", "strides", "padding", "dilation", "groups", "use_bias", "use_norm", "pool",
    "activation", "weights", "epsilon",
}  # fmt: skip
WITHOUT_EFFECT = {"gradient_bits", "momentum", "dtype", "conv", "name", "parent"}  # on what the network computes


def record(
    network: nn.Module,
    variables: dict[str, Any],
    image_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Graph:
    """The graph of a plain network (`Architecture.plain`, or any built from a `LayerFactory`) with its variables.

    Products are exact in the graph: a network that multiplies in bfloat16 (``dtype``) rounds what the graph does not.

    Args:
        variables: ``params`` and ``batch_stats``. mean, std: what images are normalized with, in units of 0..255.
    Raises UserError for a network that does something for which there is no node.
    """
    kit = getattr(network, "kit", None)
    if not isinstance(kit, LayerFactory):
        raise UserError(f"{type(network).__name__}: has no kit, allowed a network that makes its units by one")
    lowering = Lowering(variables)
    image = Tensor(lowering, IMAGE, (1, *image_shape))
    x = lowering.append(Normalize("normalize", (IMAGE,), _floats(mean), _floats(std)), image.shape)
    output = network.clone(kit=lowering_factory(kit, lowering)).apply({}, x)
    graph = Graph(image_shape, tuple(lowering.nodes), lowering.tensors)
    if not isinstance(output, Tensor) or output.name != graph.output:
        raise UserError(f"{type(network).__name__}: what it returns is not the last thing that it computes")
    graph.check()
    return graph


class Lowering:
    """The nodes and tensors so far."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.unit = ""  # whose name the operations inside it begin with

    def append(self, node: Node, shape: tuple[int, ...], **tensors: Any) -> "Tensor":
        """The result of a new node. ``shape``: with the batch axis, 1. ``tensors``: by role."""
        self.nodes.append(node)
        for role, tensor in tensors.items():
            self.tensors[node.tensor(role)] = np.array(tensor, node.roles()[role], order="C")
        return Tensor(self, node.name, shape)

    def name(self, name: str) -> str:
        """A name that no node has, inside the unit at hand."""
        name = f"{self.unit}/{name}" if self.unit else name
        taken = {node.name for node in self.nodes}
        numbered = (f"{name}_{count}" for count in range(2, len(taken) + 3))
        return name if name not in taken else next(other for other in numbered if other not in taken)

    def leaf(self, *path: str) -> np.ndarray:
        """A variable. Raises UserError if it is not there."""
        node: Any = self.variables
        for part in path:
            if part not in node:
                raise UserError(f"variables: lack {'/'.join(path)}")
            node = node[part]
        return np.asarray(node)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A result in the making: the `plq.layers.operations.Tracer` of this module. ``shape`` has the batch axis, 1."""

    lowering: Lowering
    name: str
    shape: tuple[int, ...]

    def record(self, operation: str, output_shape: tuple[int, ...], options: dict[str, Any]) -> "Tensor":
        """The result of an operation without variables."""
        if operation not in NODES:
            raise UserError(f"operation {operation}: there is no node for it in plq.runtime.nodes")
        if "padding" in options:
            size = (options["window"],) * 2
            pads = explicit_padding(options["padding"], self.shape, size, (options["stride"],) * 2)
            options = {**options, "padding": pads}
        node = NODES[operation](self.lowering.name(operation), (self.name,), **options)
        return self.lowering.append(node, output_shape)

    def __add__(self, other: "Tensor") -> "Tensor":
        name = self.lowering.name("add")
        return self.lowering.append(Add(name, (self.name, other.name)), self.shape)


def lowering_factory(kit: LayerFactory, lowering: Lowering) -> LayerFactory:
    """The kit whose makers give units that write themselves down."""
    makers = {field.name: getattr(kit, field.name) for field in dataclasses.fields(kit)}
    made: dict[str, Any] = {
        name: _maker(make, lowering) for name, make in makers.items() if not isinstance(make, ActivationQuantizer)
    }
    return dataclasses.replace(kit, **made)


def _maker(make: Callable[..., nn.Module], lowering: Lowering) -> Callable[..., Any]:
    def lowering_unit(*args: Any, **fields: Any) -> Callable[..., Tensor]:
        unit = make(*args, **fields, parent=None)
        if type(unit).__name__ not in WRITERS:
            raise UserError(f"{unit.name}: a {type(unit).__name__} cannot be written down")
        for field in dataclasses.fields(unit):
            if field.name not in READ | WITHOUT_EFFECT and getattr(unit, field.name) != field.default:
                raise UserError(f"{unit.name}: its {field.name} cannot be written down")
        return partial(_write, lowering, unit)

    return lowering_unit


def _write(lowering: Lowering, unit: Any, x: Tensor, train: bool = False, residual: Tensor | None = None) -> Tensor:
    del train
    lowering.unit = unit.name
    y = WRITERS[type(unit).__name__](lowering, unit, x, residual)
    lowering.unit = ""
    return y


def write_unit(lowering: Lowering, unit: Unit, x: Tensor, residual: Tensor | None) -> Tensor:
    """The nodes of a `Unit`, in its order: product, affine, residual, pooling, activation."""
    y = _product(lowering, unit, x)
    if unit.use_norm or unit.use_bias:
        y = _affine(lowering, "norm" if unit.use_norm else "bias", y, *_norm_and_bias(lowering, unit))
    if residual is not None:
        y = y + residual
    if unit.pool is not None:
        y = unit.pool(y)
    return y if unit.activation is None else _activation(lowering, unit.activation, y)


def write_entry(lowering: Lowering, entry: Any, x: Tensor, residual: None) -> Tensor:
    """The nodes of an `PreActivation`: batch norm and activation, or from [-1, 1] to the activation's grid."""
    del residual
    if entry.use_norm:
        y = _affine(lowering, "norm", x, *_norm(lowering, entry.epsilon, 0.0))
        return _activation(lowering, entry.activation, y)
    if entry.activation.bits == FLOAT_BITS:
        return x
    half = np.full(x.shape[-1], 0.5)
    return _activation(lowering, entry.activation, _affine(lowering, "middle", x, half, half))


WRITERS: dict[str, Callable[..., Tensor]] = {"Unit": write_unit, "PreActivation": write_entry}


def _product(lowering: Lowering, unit: Unit, x: Tensor) -> Tensor:
    """Convolution or dense layer, with its weights as codes if they are quantized."""
    grid, tensors = _weights(lowering, unit.weights, ("params", lowering.unit, "conv"))
    common: Any = {"name": lowering.name("conv"), "inputs": (x.name,), "features": unit.features, "grid": grid}
    if not unit.kernel_size:
        return lowering.append(Dense(**common), (1, unit.features), **tensors)
    if len(unit.kernel_size) != 2:
        raise UserError(f"{unit.name}: found {len(unit.kernel_size)} spatial axes, allowed 2")
    size, strides, dilation = (_pair(field) for field in (unit.kernel_size, unit.strides, unit.dilation))
    spans = ((size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1)
    padding = explicit_padding(unit.padding, x.shape, spans, strides)
    node = Conv(**common, kernel_size=size, strides=strides, padding=padding, dilation=dilation, groups=unit.groups)
    sizes = [
        (n + sum(pads) - span) // stride + 1
        for n, pads, span, stride in zip(x.shape[1:3], padding, spans, strides, strict=True)
    ]
    return lowering.append(node, (1, *sizes, unit.features), **tensors)


def _pair(given: Sequence[int] | None) -> tuple[int, int]:
    height, width = given or (1, 1)
    return int(height), int(width)


def _weights(lowering: Lowering, quantizer: WeightQuantizer, path: tuple[str, ...]) -> tuple[Grid | None, dict]:
    kernel = lowering.leaf(*path, "kernel")
    if quantizer.bits == FLOAT_BITS:
        return None, {"kernel": kernel}
    scales = {name: lowering.leaf(*path, name) for name in quantizer.scale_names}
    found: Quantized = jax.device_get(_quantize(kernel, scales, quantizer))
    offsets, levels = np.unique(found.offset), found.levels
    if len(offsets) != 1:
        raise UserError(f"{'/'.join(path)}: found {len(offsets)} offsets, allowed one for the whole kernel")
    grid = Grid(quantizer.bits, float(offsets[0]), None if levels is None else tuple(map(int, levels)))
    scale = found.scale.reshape((1,) * (kernel.ndim - found.scale.ndim) + found.scale.shape)
    return grid, {"kernel": found.codes, "scale": scale}


@partial(jax.jit, static_argnums=2)
def _quantize(kernel: Any, scales: Any, quantizer: WeightQuantizer) -> Quantized:
    """Compiled, as in the network."""
    return quantizer.quantize(kernel, scales)


def _affine(lowering: Lowering, name: str, x: Tensor, scale: np.ndarray, shift: np.ndarray) -> Tensor:
    return lowering.append(Affine(lowering.name(name), (x.name,)), x.shape, scale=scale, shift=shift)


def _norm_and_bias(lowering: Lowering, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """What a unit does to each channel after its product: scale and shift."""
    bias = lowering.leaf("params", lowering.unit, "conv", "bias") if unit.use_bias else np.zeros(unit.features)
    return _norm(lowering, unit.epsilon, bias) if unit.use_norm else (np.ones(unit.features), bias)


def _norm(lowering: Lowering, epsilon: float, bias: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of batch norm with its statistics, after a bias; folded in float64."""
    gamma, beta = (lowering.leaf("params", lowering.unit, "norm", name) for name in ("scale", "bias"))
    mean, variance = (lowering.leaf("batch_stats", lowering.unit, "norm", name) for name in ("mean", "var"))
    scale = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
    return scale, beta + (bias - mean.astype(np.float64)) * scale


def _activation(lowering: Lowering, quantizer: ActivationQuantizer, x: Tensor) -> Tensor:
    """What the activation of the unit at hand does."""
    names = () if quantizer.bits == FLOAT_BITS else quantizer.scale_names
    scales = {name: jnp.asarray(lowering.leaf("params", lowering.unit, "act", name)) for name in names}
    fields = activation_fields(quantizer, scales)
    return lowering.append(Activation(lowering.name("act"), (x.name,), **fields), x.shape)


def explicit_padding(padding: Any, shape: tuple[int, ...], spans: tuple[int, ...], strides: tuple[int, ...]) -> Pads:
    """Zeros before and after height and width, of a padding given like that or as "SAME" or "VALID".

    Args:
        shape: [batch, height, width, channels] of the input. spans: of the (dilated) kernel or window.
    """
    pads = lax.padtype_to_pads(shape[1:3], spans, strides, padding) if isinstance(padding, str) else padding
    (top, bottom), (left, right) = ((int(before), int(after)) for before, after in pads)
    return (top, bottom), (left, right)


def _floats(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)
