"""A unit as staircases: the integer sums at which the output of each channel steps up."""

import dataclasses
from typing import cast

import numpy as np

from plq.exporters.units import Unit
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid

FARTHEST = 2**40  # beyond any sum
TIE = 1e-9


@dataclasses.dataclass(frozen=True)
class Steps:
    """What a kernel has to do with the sums of a unit's channels.

    kernel      int32, in the shape of the product's: what codes are multiplied by. The weights' integers, negative
                where the batch norm falls, so that every channel rises with its sum; 0 where it is constant
    outputs     int [n], rising: the step from outputs[i] - 1 or less to outputs[i] lies at outputs[i] - 1/2
    sums        int64 [channels, n]: the smallest sum at which the output is outputs[i] or more
    low, high   int64 [channels]: the sums that can occur
    slope, intercept   float64 [channels]: the line that is rounded, slope * sum + intercept
    """

    kernel: np.ndarray
    outputs: np.ndarray
    sums: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """Which steps lie within the sums that can occur, bool [channels, n]."""
        return (self.low[:, None] < self.sums) & (self.sums <= self.high[:, None])


def steps_of(graph: Graph, unit: Unit) -> Steps:
    """The staircases of a unit: its steps are where real arithmetic has them."""
    product, outputs = unit.product, outputs_of(unit)
    slope, intercept = line(graph, unit)
    integers = cast(Grid, product.grid).integers[graph.tensors[product.tensor("kernel")]]
    kernel = integers * np.sign(slope).astype(np.int32)
    middles = outputs - 0.5 - intercept[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.where(slope[:, None] == 0, np.inf * np.sign(middles), middles / np.abs(slope)[:, None])
    exact = np.clip(exact, -FARTHEST, FARTHEST)
    nearest = np.round(exact)
    is_tie = np.abs(exact - nearest) <= TIE * np.maximum(1, np.abs(exact))
    sums = np.where(is_tie, nearest + ~ties_go_up(unit, outputs), np.ceil(exact)).astype(np.int64)
    return Steps(kernel, outputs, sums, *reach(graph, unit, kernel), np.abs(slope), intercept)


def outputs_of(unit: Unit) -> np.ndarray:
    """The integers that a kernel has to tell from those below: the grid's own, or, with levels, twice the midpoints."""
    integers = unit.grid.integers
    if unit.grid.levels:
        return integers[1:] + integers[:-1]
    return np.arange(1 - integers[-1] if unit.is_signed else integers[0] + 1, integers[-1] + 1)


def ties_go_up(unit: Unit, outputs: np.ndarray) -> np.ndarray:
    """Whether the network takes k - 1/2 to k, for each output k."""
    if unit.grid.levels or unit.activation.rounding == "half_up":
        return (outputs > 0) | (not unit.is_even)
    return outputs % 2 == 0


def line(graph: Graph, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept, float64 [channels], of what is rounded as a function of the sum.

    With levels a kernel counts halves of them: the midpoint k / 2 of two levels is where 2 v - 1/2 is rounded to k.
    """
    product, node = unit.product, unit.activation
    scale, shift = np.ones(product.features), np.zeros(product.features)
    if unit.affine is not None:
        scale, shift = (graph.tensors[unit.affine.tensor(role)].astype(np.float64) for role in ("scale", "shift"))
    worth = graph.tensors[product.tensor("scale")].astype(np.float64).reshape(-1)
    worth = worth * graph.values[product.inputs[0]].scale / cast(Grid, product.grid).multiple
    factor = node.factor / node.divisor * (2 if unit.grid.levels else 1)
    return scale * worth * factor, shift * factor - (0.5 if unit.grid.levels else 0)


def reach(graph: Graph, unit: Unit, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest sum that each channel can have, int64 [channels]."""
    grid = cast(Grid, graph.values[unit.product.inputs[0]].grid)
    ends = [int(end) * kernel.astype(np.int64) for end in (grid.integers[0], grid.integers[-1])]
    axes = tuple(range(kernel.ndim - 1))
    return np.minimum(*ends).sum(axes), np.maximum(*ends).sum(axes)
