"""What quantizers with learned scales share: a guard, LSQ's gradients, and a start value from data."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.quant.means import at_least_tiny
from plq.quant.quantized import in_units, product, straight_through

SMALLEST = 1e-6
SHRINKS = np.geomspace(0.02, 1.0, 60).astype(np.float32)
SAMPLES = 2**16


def positive(scale: Array) -> Array:
    """|scale|, at least `SMALLEST`: a learned scale that an update takes across 0 goes on on the other side.

    The gradient is that of |scale| (1 at 0), also below `SMALLEST`, so that no scale is ever stuck.
    """
    magnitude = jnp.where(scale < 0, -scale, scale)
    return straight_through(magnitude, jnp.maximum(magnitude, SMALLEST))


def gradient_scale(values: float, largest: float) -> float:
    """LSQ's factor 1 / sqrt(values per scale * largest code) of a scale's gradient (arXiv 1902.08153, sec. 2.2)."""
    return 1 / math.sqrt(max(values, 1) * largest)


@jax.custom_vjp
def times_slope(scale: Array, slope: Array) -> Array:
    """scale * slope of a slope that is constant, for surrogates: the gradient of scale is sum(gradient * slope).

    By products that no compiler fuses into the sum, so that it has the same bits with a branch and without.
    """
    return scale * slope


def _times_slope_forward(scale, slope):
    return scale * slope, (scale.shape, slope)


def _times_slope_backward(residuals, gradient):
    shape, slope = residuals
    broadcast = tuple(axis for axis in range(gradient.ndim) if not shape or shape[axis] == 1)
    return jnp.sum(product(gradient, slope), broadcast).reshape(shape), jnp.zeros_like(slope)


times_slope.defvjp(_times_slope_forward, _times_slope_backward)


def learned_grid(
    x: Array, v: Array, scale: Array, ends: tuple[float, float], nearest: Callable[[Array], Array], factor: float
) -> Array:
    """A surrogate with the gradients of LSQ (arXiv 1902.08153, eq. 3 and 5), written out:

        d/dscale = factor * (nearest(v) - v)   where low < v < high, else factor * (low or high)
        d/dx     = 1                           where low < v < high, else 0

    Args:
        v: x in units of the scale. ends: low and high, levels of the grid. nearest: the level of a v between them.
    """
    (low, high), v = ends, jax.lax.stop_gradient(v)
    inside = (low < v) & (v < high)
    slope = nearest(jnp.clip(v, low, high)) - jnp.where(inside, v, 0.0)
    return jnp.where(inside, x, 0.0) + times_slope(factor * scale, slope)


def best_clip(x: Array, reconstruct: Callable[[Array, Array], Array]) -> Array:
    """The clip in (0, max|x|] for which ``reconstruct(x, clip)`` has the least squared error; 1 if x is all 0 or empty.

    Args:
        x: any shape; of more than 65,536 values every n-th is looked at, n without a common divisor with any axis.
    Returns a float32 scalar; NaN where a value looked at is.
    """
    if not x.size:
        return jnp.float32(1.0)
    flat = x.reshape(-1).astype(jnp.float32)
    every = -(-flat.size // SAMPLES)
    while math.gcd(every, flat.size) > 1:
        every += 1
    flat = flat[::every]
    largest = jnp.max(jnp.abs(flat))
    clips, unit = largest * SHRINKS, at_least_tiny(largest)  # in units of it, so that no square overflows
    errors = jax.lax.map(lambda clip: jnp.mean(in_units(flat - reconstruct(flat, clip), unit) ** 2), clips)
    least = jnp.argmin(errors)
    best = jnp.where(jnp.isnan(errors[least]), jnp.nan, clips[least])  # a compiled maximum may leave out what is NaN
    return jnp.where(best == 0, 1.0, best)
