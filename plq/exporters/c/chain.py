"""What follows a product, element by element: in NumPy, and as lines of C. Both give the same bits.

All numbers are float32, and each operation rounds by itself.
"""

import itertools
from collections.abc import Callable

import numpy as np

from plq.exporters.c.plan import BYTES, Step, Store
from plq.runtime.graph import Graph
from plq.runtime.nodes import Activation, Affine

Float = np.float32
SIXTH = Float(1 / 6)
HALF = Float(0.5)

NONLINEARITY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda y: y,
    "relu": lambda y: np.maximum(y, Float(0)),
    "clip": lambda y: np.clip(y, Float(0), Float(1)),
    "abs": np.abs,
    "abs_clip": lambda y: np.minimum(np.abs(y), Float(1)),
    "hard_swish": lambda y: y * (np.clip(y + Float(3), Float(0), Float(6)) * SIXTH),
}
C_NONLINEARITY: dict[str, list[str]] = {
    "identity": [],
    "relu": ["v = @max(v, @all(0.0f));"],
    "clip": ["v = @max(v, @all(0.0f));", "v = @min(v, @all(1.0f));"],
    "abs": ["v = @abs(v);"],
    "abs_clip": ["v = @abs(v);", "v = @min(v, @all(1.0f));"],
    "hard_swish": [
        "gate = @min(@max(@add(v, @all(3.0f)), @all(0.0f)), @all(6.0f));",
        f"v = @mul(v, @mul(gate, @all({float(SIXTH).hex()}f)));",
    ],
}


def apply(graph: Graph, steps: tuple[Step, ...], y: np.ndarray, others: dict[str, np.ndarray]) -> np.ndarray:
    """The result of all steps, float32 [..., channels]: of a rounding the integers. ``others``: real numbers added."""
    for step in steps:
        node = step.node
        if isinstance(node, Affine):
            scale, shift = (graph.tensors[node.tensor(role)] for role in node.roles())
            y = y * scale + shift
        elif isinstance(node, Activation):
            y = activate(node, y)
        else:
            y = y + others[step.other]
    return y


def activate(node: Activation, y: np.ndarray) -> np.ndarray:
    """What an activation gives: real numbers, or integers on its grid."""
    y, grid = NONLINEARITY[node.nonlinearity](y), node.grid
    if grid is None:
        return y
    v = y / Float(node.divisor) * Float(node.factor)
    integers = grid.integers
    if grid.levels is None:
        v = np.clip(v, Float(integers[0]), Float(integers[-1]))
        return np.round(v) if node.rounding == "half_even" else np.floor(v + HALF)
    level = np.full(v.shape, integers[0], Float)
    for low, high in itertools.pairwise(integers):
        level += np.where(v + Float(grid.offset) >= Float((low + high) / 2), Float(high - low), Float(0))
    return level


def c_steps(steps: tuple[Step, ...], name: Callable[[str], str], other: Callable[[str], str], out: Store) -> list[str]:
    """Lines that take ``v`` from the first numbers to ``y + f``; each "@" stands for v_ or s_ of vector.h.

    Args:
        name: the C name of a tensor. other: an expression for the numbers of another value at f.
    """
    lines: list[str] = []
    for step in steps:
        node = step.node
        if isinstance(node, Affine):
            scale, shift = (name(node.tensor(role)) for role in ("scale", "shift"))
            lines += [f"v = @mul(v, @load({scale} + f));", f"v = @add(v, @load({shift} + f));"]
        elif isinstance(node, Activation):
            lines += C_NONLINEARITY[node.nonlinearity]
            if node.grid is not None:
                return lines + _c_rounding(node, out)
        else:
            lines.append(f"v = @add(v, {other(step.other)});")
    return [*lines, "@to_reals(y + f, v);"]


def _c_rounding(node: Activation, out: Store) -> list[str]:
    grid, lines = node.grid, list[str]()
    assert grid is not None
    if node.divisor != 1:
        lines.append(f"v = @div(v, @all({c_float(node.divisor)}));")
    if node.factor != 1:
        lines.append(f"v = @mul(v, @all({c_float(node.factor)}));")
    store = f"@to_bytes(y + f, v, {out.base});" if out.kind == BYTES else "@to_integers(y + f, v);"
    low, high = int(grid.integers[0]), int(grid.integers[-1])
    if grid.levels is None:
        lines += [f"v = @max(v, @all({c_float(low)}));", f"v = @min(v, @all({c_float(high)}));"]
        return [*lines, f"v = @{node.rounding}(v);", store]
    if grid.offset:
        lines.append(f"v = @add(v, @all({c_float(grid.offset)}));")
    lines.append(f"level = @all({c_float(low)});")
    for below, above in itertools.pairwise(grid.integers.tolist()):
        numbers = (c_float((below + above) / 2), c_float(above - below))
        lines.append(f"level = @add(level, @reached(v, {', '.join(f'@all({number})' for number in numbers)}));")
    return [*lines, store.replace(", v", ", level")]


def c_float(value: float) -> str:
    """A float32 literal."""
    return f"{float(Float(value)).hex()}f" if value >= 0 else f"({float(Float(value)).hex()}f)"


def c_integer(value: int) -> str:
    """An int literal that can stand in an expression."""
    return str(value) if value >= 0 else f"({value})"
