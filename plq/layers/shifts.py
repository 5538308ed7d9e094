"""A convolution as a loop over the positions of its window, each a product with the input shifted there."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = str | Sequence[tuple[int, int]]


def sum_over_shifts(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    product: Callable[[Array, Array], Array],
) -> Array:
    """The sum of ``product`` over all positions of the window, float32 [batch, *spatial', features].

    Args:
        x: [batch, *spatial, channels]. kernel: [*window, in, features]. padding: as of `lax.conv_general_dilated`,
        below 0 it crops. product: of pixels [batch, *spatial', channels] and the kernel's [in, features] there.
    """
    window = kernel.shape[:-2]
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], spans, strides, padding)
    x = lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    sizes = [(n - span) // s + 1 for n, span, s in zip(x.shape[1:-1], spans, strides, strict=True)]
    reach = [(size - 1) * s + 1 for size, s in zip(sizes, strides, strict=True)]
    every = (slice(None), *(slice(None, None, s) for s in strides))

    def term(corner: Array, row: Array) -> Array:
        pixels = lax.dynamic_slice(x, corner, span, allow_negative_indices=False)
        return product(pixels[every], row)

    inside = np.asarray([*np.ndindex(*window)], np.int32) * np.asarray(dilation, np.int32)
    corners = jnp.asarray(np.pad(inside, ((0, 0), (1, 1))))  # int32 on every axis, 0 for batch and channels
    rows, span = kernel.reshape(-1, *kernel.shape[-2:]), (x.shape[0], *reach, x.shape[-1])
    if len(rows) == 1:
        return term(corners[0], rows[0])
    start = jnp.zeros((x.shape[0], *sizes, kernel.shape[-1]), jnp.float32)
    return lax.scan(lambda total, at: (total + term(*at), None), start, (corners, rows))[0]
