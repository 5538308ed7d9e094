"""What networks do between their units: functions of one array, NHWC, that have no variables.

Each also takes a `Concat`, of which it works on both halves, and a `Tracer`, which records the call instead.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax

from plq.layers.opaque import step

Pads = tuple[tuple[int, int], tuple[int, int]]


@runtime_checkable
class Tracer(Protocol):
    """Stands for an array where a network is written down instead of computed."""

    shape: tuple[int, ...]

    def record(self, operation: str, output_shape: tuple[int, ...], options: dict[str, Any]) -> "Tracer":
        """The result of an operation of this module, by its name."""


OPERATIONS: dict[str, Callable[..., Array]] = {}


def operation(op: str) -> Callable[[Callable[..., Array]], Callable[..., Any]]:
    """An entry in `OPERATIONS` under the name of its node in a frozen file; takes arrays, a `Concat`, or a `Tracer`."""

    def entry(function: Callable[..., Array]) -> Callable[..., Any]:
        OPERATIONS[op] = function

        def on_one(x: Any, options: dict[str, Any]) -> Any:
            if not isinstance(x, Tracer):
                return step(op, "", options, lambda array: function(array, **options), x)
            like = jax.ShapeDtypeStruct(x.shape, jnp.float32)
            shape = jax.eval_shape(lambda array: function(array, **options), like).shape
            return x.record(op, shape, options)

        @wraps(function)
        def called(x: Any, **options: Any) -> Any:
            return jax.tree.map(lambda leaf: on_one(leaf, options), x)

        return called

    return entry


@operation("halve")
def max_pool_2x2(x: Array) -> Array:
    """2x2 max pooling, stride 2; an odd last row or column is dropped.

    By slices: the backward pass of a window reduction is many times slower on XLA:CPU.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    corners = [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    return jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))


@operation("max_pool")
def max_pool(x: Array, *, window: int, stride: int, padding: str | Pads) -> Array:
    """The largest of each window x window pixels."""
    around = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), around)


@operation("global_mean")
def global_mean(x: Array) -> Array:
    """[batch, height, width, channels] -> [batch, channels], float32.

    A product with a constant, because its operands are arrays in memory: a plain sum is merged with the
    multiplications before it, which differ with a branch there, and rounds differently; taking the branch away
    would then change the last bit of the logits.
    """
    pixels = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    weights = jnp.full(pixels.shape[1], 1 / pixels.shape[1], jnp.float32)
    return jnp.einsum("bpc,p->bc", pixels, weights, precision=lax.Precision.HIGHEST)


@operation("flatten")
def flatten(x: Array) -> Array:
    """[batch, ...] -> [batch, values], the last axis fastest."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@operation("shrink")
def zero_pad_shortcut(x: Array, *, stride: int, channels: int) -> Array:
    """Every stride-th pixel, and as many channels, zeros on both sides of those there are: option A of ResNets."""
    before = (channels - x.shape[-1]) // 2
    pad = ((0, 0), (0, 0), (0, 0), (before, channels - x.shape[-1] - before))
    return jnp.pad(x[:, ::stride, ::stride], pad)
