"""Convolutions and dense layers on integers, with no rounding at all.

Both operands are integers on their grids, carried in float32: far faster than an integer convolution on the backends
that XLA has, and exact while no sum can leave [-2**24, 2**24]. That is known from the weights at hand: at most the sum
of |w| times the largest |x|. Where it is not so, the input channels are taken in parts whose sums are added as int32. A
kernel with one scale per position or row (SYQ) is taken position by position, so that each sum is one of integers.
"""

import dataclasses
import functools
import itertools

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from plq.layers.depthwise import depthwise, is_depthwise
from plq.layers.shifts import sum_over_shifts
from plq.runtime.graph import Graph
from plq.runtime.nodes import LARGEST, Conv, Product

EXACT = 2**24  # all integers up to this magnitude are float32 numbers
HIGHEST = lax.Precision.HIGHEST  # operands as they are, not rounded to bfloat16 or TF32

Tile = tuple[tuple[int, int], ...]  # [start, stop) along each axis of a kernel but its last: a piece of it


@dataclasses.dataclass(frozen=True)
class IntegerProduct:
    """A node whose input and weights are on grids, ready to be computed.

    ``kernel``: multiple * (level + offset) of the weights, in the smallest integer type that holds them.
    ``groups``: for each scale, the pieces of the kernel that it belongs to, each with sums that are exact in float32.
    ``worths``: for each scale, float32 [1] or [features], what one unit of its sums is worth; the scales of input and
    weights are in it.
    ``largest``: what no sum over a whole kernel can exceed.
    """

    node: Product
    kernel: np.ndarray
    groups: tuple[tuple[Tile, ...], ...]
    multipliers: tuple[np.ndarray, ...]
    largest: int

    def __call__(self, x: Array, kernel: Array, multipliers: tuple[Array, ...]) -> Array:
        """float32 real numbers, from the integers x (float32) and the arrays of this object as handed to `jax.jit`.

        Every sum is exact; it is rounded once where it is multiplied with its worth, and where groups are added.
        """
        sums = [_exact_sum(self.node, x, kernel, cuts) for cuts in self.groups]
        total = sums[0] * multipliers[0]
        for other, worth in zip(sums[1:], multipliers[1:], strict=True):
            total = total + other * worth
        return total


def integer_product(graph: Graph, node: Product) -> IntegerProduct:
    """Plan the exact computation of a node. Raises UserError if there is none: sums or scales that are too large."""
    value = graph.values[node.inputs[0]]
    assert node.grid is not None and value.grid is not None
    numbers = node.grid.integers[graph.tensors[node.tensor("kernel")]]
    dtype = next(kind for kind in (np.int8, np.int16, np.int32) if node.grid.largest <= np.iinfo(kind).max)
    bounds = np.abs(numbers.astype(np.int64)) * value.grid.largest
    scale = graph.tensors[node.tensor("scale")].astype(np.float64)
    unit = value.scale / value.grid.multiple / node.grid.multiple
    steps = [_steps(scales, length) for scales, length in zip(scale.shape[:-2], numbers.shape[:-2], strict=True)]
    areas = list(itertools.product(*steps))
    groups = tuple(_exact_cuts(node, area, bounds) for area in areas)
    if np.abs(scale).max() * unit > LARGEST:
        raise node.fail(f"scales up to {np.abs(scale).max() * unit:.2g} with the input's", f"{LARGEST:.2g}")
    multipliers = tuple((scale[tuple(start for start, _ in area)][0] * unit).astype(np.float32) for area in areas)
    largest = int(bounds.sum(tuple(range(bounds.ndim - 1))).max())
    return IntegerProduct(node, numbers.astype(dtype), groups, multipliers, largest)


def _steps(scales: int, length: int) -> list[tuple[int, int]]:
    """[0, length) in one piece for one scale, or else in pieces of one."""
    return [(0, length)] if scales == 1 else [(i, i + 1) for i in range(length)]


def _exact_cuts(node: Product, area: Tile, bounds: np.ndarray) -> tuple[Tile, ...]:
    """An area of the kernel, cut along the input channels so that the sums of each piece are exact in float32.

    Args:
        bounds: the largest |w x|, int64 in the kernel's shape.
    """
    inside = bounds[tuple(slice(*part) for part in area)]
    channels = inside.sum(tuple(range(len(area))))  # [in, features]
    if channels.max() > EXACT or channels.sum(0).max() >= 2**31:
        raise node.fail(f"sums of up to {channels.sum(0).max():,}", "2**31 in all and 2**24 for one input channel")
    starts, reached = [0], np.zeros(channels.shape[1], np.int64)
    for index, channel in enumerate(channels):
        if (reached + channel).max() > EXACT:
            starts.append(index)
            reached = np.zeros_like(reached)
        reached = reached + channel
    return tuple((*area, cut) for cut in itertools.pairwise([*starts, len(channels)]))


def _exact_sum(node: Product, x: Array, kernel: Array, cuts: tuple[Tile, ...]) -> Array:
    """The sum over all pieces, float32 rounded once at most."""
    sums = [multiply(node, x, kernel[tuple(slice(*part) for part in cut)].astype(jnp.float32), cut) for cut in cuts]
    if len(sums) == 1:
        return sums[0]
    total = sums[0].astype(jnp.int32)
    for piece in sums[1:]:
        total = total + piece.astype(jnp.int32)
    return total.astype(jnp.float32)


def multiply(node: Product, x: Array, kernel: Array, cut: Tile | None = None) -> Array:
    """x times a float32 kernel as the node says, or times the piece ``cut`` of its kernel; float32.

    How depends on what it will run on, also when it is exported for several kinds of device at once.
    """
    if cut is not None:
        x = _channels(x, node, *cut[-1])
    if not isinstance(node, Conv):
        return jnp.dot(x, kernel, precision=HIGHEST)
    window = cut or ((0, node.kernel_size[0]), (0, node.kernel_size[1]))
    way = lambda convolve: functools.partial(convolve, node, window)
    cpu = way(_by_shifts if is_depthwise(x, node.groups) else _by_convolution)
    gpu = way(_by_dots)
    return lax.platform_dependent(x, kernel, cpu=cpu, cuda=gpu, rocm=gpu, default=way(_by_convolution))


def _channels(x: Array, node: Product, start: int, stop: int) -> Array:
    """The channels [start, stop) of each group of them."""
    groups = getattr(node, "groups", 1)
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return grouped[..., start:stop].reshape(*x.shape[:-1], groups * (stop - start))


def _padding(node: Conv, cut: Tile) -> list[tuple[int, int]]:
    """What pads, or below 0 crops, the input for the rows and columns at hand to meet the pixels they meet."""
    sides = zip(node.padding, node.dilation, node.kernel_size, cut, strict=False)
    return [(low - d * start, high - d * (k - stop)) for (low, high), d, k, (start, stop) in sides]


def _by_convolution(node: Conv, cut: Tile, x: Array, kernel: Array) -> Array:
    """Cropped first: with a padding below 0 on one side and above on the other XLA:CPU reads beside the input."""
    pads = _padding(node, cut)
    crops = [(min(low, 0), min(high, 0), 0) for low, high in pads]
    return lax.conv_general_dilated(
        lax.pad(x, np.float32(0), [(0, 0, 0), *crops, (0, 0, 0)]),
        kernel,
        node.strides,
        [(max(low, 0), max(high, 0)) for low, high in pads],
        rhs_dilation=node.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=node.groups,
        precision=HIGHEST,
    )


def _by_shifts(node: Conv, cut: Tile, x: Array, kernel: Array) -> Array:
    """Position by position, where each channel is a group of its own."""
    return depthwise(x, kernel, node.strides, _padding(node, cut), node.dilation)


def _by_dots(node: Conv, cut: Tile, x: Array, kernel: Array) -> Array:
    """Matrix products, one per position: a GPU's library may choose a convolution (Winograd, FFT) that rounds."""

    def product(pixels: Array, row: Array) -> Array:
        grouped = lambda x: x.reshape(*x.shape[:-1], node.groups, x.shape[-1] // node.groups)
        products = jnp.einsum("bhwgc,cgf->bhwgf", grouped(pixels), grouped(row), precision=HIGHEST)
        return products.reshape(*pixels.shape[:-1], row.shape[-1])

    return sum_over_shifts(x, kernel, node.strides, _padding(node, cut), node.dilation, product)
