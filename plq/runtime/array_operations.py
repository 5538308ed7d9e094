"""What the nodes of `plq.runtime.array_nodes` compute, in JAX. Arrays have the batch axis in front."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from plq.runtime import array_nodes as nodes

FUNCTION: dict[str, Callable[[Array], Array]] = {
    "exp": jnp.exp, "expm1": jnp.expm1, "log": jnp.log, "log1p": jnp.log1p, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid,
    "erf": lax.erf, "sqrt": jnp.sqrt, "rsqrt": lax.rsqrt, "sin": jnp.sin, "cos": jnp.cos, "sign": jnp.sign,
    "floor": jnp.floor, "ceil": jnp.ceil, "round": jnp.round,
}  # fmt: skip
ARITHMETIC: dict[str, Callable[[Any, Any], Array]] = {
    name: getattr(jnp, name)
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "equal", "not_equal", "less",
                 "less_equal", "greater", "greater_equal")
}  # fmt: skip
REDUCTION: dict[str, Callable[..., Array]] = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min, "product": jnp.prod}
WINDOW: dict[str, tuple[float, Any]] = {"sum": (0.0, lax.add), "max": (-np.inf, lax.max), "min": (np.inf, lax.min)}


def compute(node: nodes.Node, inputs: list[Array], constant: Any) -> Array:
    """The result of a node of this kind, float32. ``constant``: the tensor of an `ArithmeticConstant`."""
    return _COMPUTE[type(node)](node, *inputs, *([] if constant is None else [constant]))


def _constant(node: nodes.ArithmeticConstant, x: Array, constant: Array) -> Array:
    operands = (constant[None], x) if node.constant_first else (x, constant[None])
    return ARITHMETIC[node.function](*operands).astype(jnp.float32)


def _pad(node: nodes.Pad, x: Array) -> Array:
    return lax.pad(x, np.float32(node.value), [(0, 0, 0), *zip(node.low, node.high, node.interior, strict=True)])


def _slice(node: nodes.Slice, x: Array) -> Array:
    return x[(slice(None), *map(slice, node.starts, node.stops, node.steps))]


def _window(node: nodes.Window, x: Array) -> Array:
    start, function = WINDOW[node.function]
    pads = [(0, 0), *zip(node.low, node.high, strict=True)]
    return lax.reduce_window(x, np.float32(start), function, (1, *node.sizes), (1, *node.strides), pads)


_COMPUTE: dict[type[nodes.Node], Callable[..., Array]] = {
    nodes.Map: lambda node, x: FUNCTION[node.function](x),
    nodes.Arithmetic: lambda node, a, b: ARITHMETIC[node.function](a, b).astype(jnp.float32),
    nodes.ArithmeticConstant: _constant,
    nodes.Select: lambda node, which, no, yes: jnp.where(which != 0, yes, no),
    nodes.Reduce: lambda node, x: REDUCTION[node.function](x, axis=tuple(axis + 1 for axis in node.axes)),
    nodes.Reshape: lambda node, x: x.reshape(x.shape[0], *node.shape),
    nodes.Transpose: lambda node, x: x.transpose(0, *(axis + 1 for axis in node.permutation)),
    nodes.Broadcast: lambda node, x: jnp.broadcast_to(x, (x.shape[0], *node.shape)),
    nodes.Concatenate: lambda node, *values: jnp.concatenate(values, node.axis + 1),
    nodes.Slice: _slice,
    nodes.Pad: _pad,
    nodes.Window: _window,
    nodes.Take: lambda node, x: jnp.take(x, np.array(node.indices, np.int32), axis=node.axis + 1),
    nodes.MatMul: lambda node, a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST),
}
