"""A depthwise convolution as a sum of shifted products, for processors: XLA:CPU's own takes many times as long."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = str | Sequence[tuple[int, int]]


def is_depthwise(x: Array, groups: int) -> bool:
    """Whether each of several channels is a group of its own."""
    return groups == x.shape[-1] > 1


def depthwise(
    x: Array, kernel: Array, strides: Sequence[int], padding: Padding, dilation: Sequence[int] | None = None
) -> Array:
    """What `lax.conv_general_dilated` gives with as many groups as channels, added up in float32.

    It is a loop because its operands and its result are then arrays in memory. Otherwise XLA merges it with its
    neighbours, which differ with a branch there, and may round differently; taking the branch away could then change
    the last bit of the logits.

    Args:
        x: [batch, *spatial, channels]. kernel: [*window, 1, channels * n], channel i * n + j of the output from i.
    """
    window, dilation, dtype = kernel.shape[:-2], dilation or (1,) * len(strides), x.dtype
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], spans, strides, padding)
    x = lax.pad(x, np.zeros((), dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], -1).astype(jnp.float32)
    reach = [(n - span) // s * s + 1 for n, span, s in zip(x.shape[1:-1], spans, strides, strict=True)]
    every = (slice(None), *(slice(None, None, s) for s in strides))

    def add(total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        corner, row = at
        pixels = lax.dynamic_slice(x, (0, *corner, 0), (x.shape[0], *reach, x.shape[-1]))
        return total + pixels[every] * row, None

    corners = np.asarray([*np.ndindex(*window)], np.int32) * np.asarray(dilation, np.int32)
    rows = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
    start = jnp.zeros((x.shape[0], *((r - 1) // s + 1 for r, s in zip(reach, strides, strict=True)), x.shape[-1]))
    return lax.scan(add, start, (jnp.asarray(corners), rows))[0].astype(dtype)
