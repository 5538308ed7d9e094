"""A product stage made ready to be written: family, geometry, weights, and what its sums are worth."""

import dataclasses
import math
from typing import cast

import numpy as np

from plq.exporters.c import chain, packing
from plq.exporters.c.families import (
    DEPTHWISE,
    DOT,
    LUT,
    REAL,
    WIDE,
    Coding,
    choose,
    convolution_pad,
    integers_of,
)  # fmt: skip
from plq.exporters.c.geometry import Taps, Window, convolution_of, offsets, tap_rows, taps_of, window
from plq.exporters.c.plan import PIXELS, RISING, Plan, Stage, Store
from plq.exporters.c.steps import MOST, Steps, steps_of
from plq.runtime.graph import Graph
from plq.runtime.nodes import Activation, Normalize, Product


@dataclasses.dataclass(frozen=True)
class Part:
    """`struct part` of common.h, and the weights that belong to it: one group after the other."""

    segments: int
    length: int
    offsets: list[int]
    sums: list[int]
    limit: int
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Ready:
    """A product stage.

    worths   of each part, float32 [features]; none where sums are float
    bias     of each part, int64 [features], to be added to its sums, or None
    offset   float32 [features], to be added to what the sums are worth, or None
    steps    if codes are found by comparing sums
    """

    stage: Stage
    coding: Coding
    window: Window
    groups: int
    parts: list[Part]
    multipliers: list[np.ndarray]
    bias: list[np.ndarray] | None
    offset: np.ndarray | None
    steps: Steps | None

    @property
    def node(self) -> Product:
        return cast(Product, self.stage.node)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        conv, window = convolution_of(self.node), self.window
        reduced = math.prod(conv.kernel_size) * (1 if self.coding.family == DEPTHWISE else window.channels)
        return window.out_height * window.out_width * conv.features * reduced


def ready(plan: Plan, stage: Stage) -> Ready:
    """Get a product stage ready."""
    graph, node = plan.graph, cast(Product, stage.node)
    given = plan.stores[stage.input]
    coding = choose(graph, node, given)
    shapes = graph.values[node.inputs[0]].shape, graph.values[node.name].shape
    pad = convolution_pad(graph, given)
    found = window(coding.family, node, given, *shapes, coding.shift != 0, pad)
    groups = 1 if coding.family == DEPTHWISE else convolution_of(node).groups
    if coding.family == REAL:
        parts = [_part(node, coding, found, groups, taps, graph.kernel(node), given) for taps in taps_of(node, _ONE)]
        return Ready(stage, coding, found, groups, parts, [], None, None, None)
    scale = graph.tensors[node.tensor("scale")]
    weights, all_taps = integers_of(graph, node), taps_of(node, scale.shape)
    parts = [_part(node, coding, found, groups, taps, weights, given) for taps in all_taps]
    multipliers = [_worth(graph, node, given, scale, taps) for taps in all_taps]
    bias, offset = _constants(graph, node, given, weights, all_taps, multipliers[0])
    made = Ready(stage, coding, found, groups, parts, multipliers, bias, offset, None)
    return dataclasses.replace(made, steps=_steps(graph, made, weights, given))


_ONE = (1, 1, 1, 1)


def kernel4(array: np.ndarray) -> np.ndarray:
    """A kernel, or its scales, as [height, width, in, features]."""
    return array[None, None] if array.ndim == 2 else array


def _part(
    node: Product, coding: Coding, window: Window, groups: int, taps: Taps, kernel: np.ndarray, given: Store
) -> Part:
    """One part: where its numbers lie, and its weights in the layout of the family."""
    family = coding.family
    if family == DEPTHWISE:
        taps = Taps(tuple((position,) for position in taps.positions))
    cell = window.cell
    starts = offsets(window, node, [segment[0] for segment in taps.segments], cell)
    sums = offsets(window, node, taps.positions, 4) if coding.shift else []
    rows = np.split(tap_rows(kernel4(kernel), taps), groups, -1)
    packed = [_packed(coding, part) for part in rows]
    numbers = len(taps.segments[0]) * window.channels
    length = {LUT: -(-len(taps.segments[0]) * cell // 64), DOT: -(-numbers // 4)}.get(family, numbers)
    limit = 0
    if family == LUT:
        limit = packing.lut_limit(given.largest)
    elif family == DEPTHWISE:
        limit = int(packing.depthwise_fits(rows[0], given.largest))
    elif family == DOT:
        limit = min(packing.dot_limit(_stored(coding, part), given.largest) for part in rows)
    return Part(len(starts), length, starts, sums, limit, np.concatenate(packed))


def _stored(coding: Coding, weights: np.ndarray) -> np.ndarray:
    """What is multiplied: integer = step * stored + shift."""
    return (weights - coding.shift) // coding.step


def _packed(coding: Coding, weights: np.ndarray) -> np.ndarray:
    if coding.family == LUT:
        return packing.lut(_stored(coding, weights), coding.planes)
    if coding.family == DOT:
        return packing.dot(_stored(coding, weights))
    return {DEPTHWISE: packing.depthwise, WIDE: packing.wide, REAL: packing.real}[coding.family](weights)


def _worth(graph: Graph, node: Product, given: Store, scale: np.ndarray, taps: Taps) -> np.ndarray:
    """float32 [features]: what one unit of a part's sums is worth."""
    assert node.grid is not None
    row, column = taps.positions[0]
    full = kernel4(scale).astype(np.float64)
    own = full[row if full.shape[0] > 1 else 0, column if full.shape[1] > 1 else 0, 0]
    unit = given.scale / node.grid.multiple
    if given.kind == PIXELS:
        unit = 1 / float(np.float32(cast(Normalize, graph.nodes[0]).std[0])) / node.grid.multiple
    return np.broadcast_to((own * unit).astype(np.float32), (node.features,)).copy()


def _constants(
    graph: Graph, node: Product, given: Store, weights: np.ndarray, all_taps: list[Taps], worth: np.ndarray
) -> tuple[list[np.ndarray] | None, np.ndarray | None]:
    """What the sums lack because stored numbers are not the integers: as integers, or as real numbers."""
    kernel = kernel4(weights).astype(np.int64)
    if given.kind != PIXELS:
        parts = [given.base * tap_rows(kernel, taps).sum((0, 1, 2)) for taps in all_taps]
        return (parts if given.base else None), None
    normalize = cast(Normalize, graph.nodes[0])
    mean = np.broadcast_to(np.array(normalize.mean, np.float32).astype(np.float64), (given.shape[-1],))
    if not mean.any():
        return None, None
    groups = convolution_of(node).groups
    own = np.repeat(mean.reshape(groups, -1), node.features // groups, 0)  # [features, in / groups]
    lacking = -np.einsum("hwcf,fc->f", kernel, own)
    if (mean == mean.astype(int)).all():
        return [lacking.astype(np.int64)], None
    return None, (lacking * worth.astype(np.float64)).astype(np.float32)


def _steps(graph: Graph, made: Ready, weights: np.ndarray, given: Store) -> Steps | None:
    """The steps of a stage that ends in a rounding to few codes, each of which depends on one sum alone."""
    steps = made.stage.steps
    last = steps[-1].node if steps else None
    if not isinstance(last, Activation) or last.grid is None or last.grid.codes > MOST or len(made.parts) > 1:
        return None
    nonlinear = [step.node.nonlinearity for step in steps if isinstance(step.node, Activation)]
    if any(step.other for step in steps) or not set(nonlinear) <= set(RISING):
        return None
    low, high = (_reach(weights, given, made.bias, sign) for sign in (1, -1))
    codes = lambda sums: chain.apply(graph, steps, real_sums(made, sums), {})
    return steps_of(codes, last.grid.integers.astype(np.int64), low, high)


def _reach(weights: np.ndarray, given: Store, bias: list[np.ndarray] | None, sign: int) -> np.ndarray:
    """The smallest sum (``sign`` 1) of each feature, or the largest (-1)."""
    kernel = kernel4(weights).astype(np.int64)
    ends = np.minimum(sign * kernel, 0) * sign * given.largest
    return ends.sum((0, 1, 2)) + (0 if bias is None else bias[0])


def real_sums(made: Ready, sums: np.ndarray) -> np.ndarray:
    """What integer sums [..., features] of the only part are worth, float32."""
    y = sums.astype(np.float32) * made.multipliers[0]
    return y if made.offset is None else y + made.offset
