"""Windows of an input, and the parts of them that have weights of their own: what kernels are told."""

import dataclasses
import itertools
import math

import numpy as np

from plq.exporters.c.families import DEPTHWISE, LUT, REAL, TABLE, WIDE
from plq.exporters.c.plan import SIZES, Store
from plq.runtime.node import Shape
from plq.runtime.nodes import Conv, Product

BLOCK = 16  # features
BEHIND = {LUT: 48}  # bytes behind the cells of a line that kernels read as well
UNITS = {LUT: 16, WIDE: 4, REAL: 4}  # bytes of a line per table or number
SUMS_BYTES, LINES_BYTES = 12 * 2**10, 96 * 2**10  # what a band takes, if it has more than one row
LINE = 64  # a line's bytes are a multiple of it


@dataclasses.dataclass(frozen=True)
class Window:
    """`struct window` of common.h, for one group of channels."""

    height: int
    width: int
    channels: int
    pitch: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    out_height: int
    out_width: int
    features: int
    span: int
    band: int
    cell: int
    cells: int
    line: int
    sums: int
    pad: int

    @property
    def line_bytes(self) -> int:
        """Of all lines of a band; kernels may read a little behind the last one."""
        return ((self.band - 1) * self.stride_h + self.span) * self.line + LINE

    @property
    def sums_bytes(self) -> int:
        """Of the sums of a band."""
        return 4 * self.band * self.out_width * self.features


@dataclasses.dataclass(frozen=True)
class Taps:
    """Positions of a kernel that have one scale per feature: rows and columns, and what they are contiguous in.

    ``segments``: for each, the positions [(row, column)] whose cells follow each other in a line.
    """

    segments: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def positions(self) -> list[tuple[int, int]]:
        return [position for segment in self.segments for position in segment]


def convolution_of(node: Product) -> Conv:
    """A dense layer as the convolution of one pixel that it is."""
    if isinstance(node, Conv):
        return node
    return Conv(node.name, node.inputs, node.features, node.grid, (1, 1))


def window(family: str, node: Product, given: Store, shape: Shape, result: Shape, sums: bool, pad: int) -> Window:
    """The geometry of a product.

    Args:
        shape, result: of input and output. sums: whether the sum of each cell's channels is needed.
    """
    conv = convolution_of(node)
    height, width, channels = shape if len(shape) == 3 else (1, 1, shape[0])
    out_height, out_width = result[:2] if len(result) == 3 else (1, 1)
    groups = 1 if family == DEPTHWISE else conv.groups
    features = conv.features // groups
    cell = cell_bytes(family, features if family == DEPTHWISE else channels // groups)
    spans = [(k - 1) * d + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    cells = (out_width - 1) * conv.strides[1] + spans[1]
    end = _up(cells * cell + BEHIND.get(family, 0), 4)
    found = Window(
        height=height, width=width, channels=channels // groups, pitch=SIZES[given.kind] * channels,
        stride_h=conv.strides[0], stride_w=conv.strides[1], top=conv.padding[0][0], left=conv.padding[1][0],
        out_height=out_height, out_width=out_width, features=-(-features // BLOCK) * BLOCK, span=spans[0], band=1,
        cell=cell, cells=cells, line=_up(end + 4 * cells * sums, LINE), sums=end if sums else 0, pad=pad,
    )  # fmt: skip
    return dataclasses.replace(found, band=_band(found))


def cell_bytes(family: str, channels: int) -> int:
    """Of one pixel of a line."""
    return UNITS.get(family, 1) * (-(-channels // TABLE) if family == LUT else channels)


def _band(window: Window) -> int:
    """As many rows as fit into the caches, at least one."""
    band = 1
    while band < window.out_height:
        more = dataclasses.replace(window, band=band + 1)
        if more.sums_bytes > SUMS_BYTES or more.line_bytes > LINES_BYTES:
            break
        band += 1
    return band


def taps_of(node: Product, scale_shape: Shape) -> list[Taps]:
    """The parts of a kernel, one per scale."""
    conv = convolution_of(node)
    scales = scale_shape[:-2] if isinstance(node, Conv) else (1, 1)
    ranges = [
        [range(length)] if count == 1 else [range(i, i + 1) for i in range(length)]
        for count, length in zip(scales, conv.kernel_size, strict=True)
    ]
    return [Taps(tuple(_segments(conv, rows, columns))) for rows, columns in itertools.product(*ranges)]


def _segments(conv: Conv, rows: range, columns: range) -> list[tuple[tuple[int, int], ...]]:
    alone = conv.dilation[1] > 1
    if alone:
        return [((row, column),) for row in rows for column in columns]
    return [tuple((row, column) for column in columns) for row in rows]


def offsets(window: Window, node: Product, positions: list[tuple[int, int]], cell: int) -> list[int]:
    """Bytes from the first cell of a window to those at these positions; ``cell``: bytes from one to the next."""
    rows, columns = convolution_of(node).dilation
    return [row * rows * window.line + column * columns * cell for row, column in positions]


def tap_rows(kernel: np.ndarray, taps: Taps) -> np.ndarray:
    """A kernel [height, width, in, features] as [segments, positions, in, features]."""
    return np.stack([np.stack([kernel[position] for position in segment]) for segment in taps.segments])


def _up(number: int, to: int) -> int:
    return math.ceil(number / to) * to
