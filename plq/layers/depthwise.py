"""A depthwise convolution as a sum of shifted products, for processors: XLA:CPU's own takes many times as long."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from plq.layers.opaque import is_lowering
from plq.layers.shifts import Padding, sum_over_shifts


def is_depthwise(x: Array, groups: int) -> bool:
    """Whether each of several channels is a group of its own."""
    return groups == x.shape[-1] > 1


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Array:
    """`lax.conv_general_dilated`, channels last; on a processor a depthwise one is `depthwise`."""
    alone = is_depthwise(x, feature_group_count) and set(lhs_dilation or ()) <= {1}
    if alone and jax.default_backend() == "cpu" and not is_lowering():
        return depthwise(x, kernel, strides, padding, rhs_dilation)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        feature_group_count=feature_group_count,
        **options,
    )


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
    wide = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], -1).astype(jnp.float32)
    product = lambda pixels, row: pixels * row[0]
    dilation = dilation or (1,) * len(strides)
    return sum_over_shifts(wide, kernel.astype(jnp.float32), strides, padding, dilation, product).astype(x.dtype)
