"""What follows a product, element by element: in NumPy, and as lines of C. Both give the same bits.

All numbers are float32, and each operation rounds by itself.
"""

import itertools
from collections.abc import Callable

import numpy as np

from plq.export.c.plan import BYTES, Step, Store
from plq.frozen.graph import Graph
from plq.frozen.nodes import Activation, Affine

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
    "relu": ["v = v > 0.0f ? v : 0.0f;"],
    "clip": ["v = v > 0.0f ? v : 0.0f;", "v = v < 1.0f ? v : 1.0f;"],
    "abs": ["v = v < 0.0f ? -v : v;"],
    "abs_clip": ["v = v < 0.0f ? -v : v;", "v = v < 1.0f ? v : 1.0f;"],
    "hard_swish": [
        "gate = v + 3.0f;",
        "gate = gate > 0.0f ? gate : 0.0f;",
        "gate = gate < 6.0f ? gate : 6.0f;",
        f"gate = gate * {float(SIXTH).hex()}f;",
        "v = v * gate;",
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
    """Lines that take ``v`` from the first number to ``y[f]``.

    Args:
        name: the C name of a tensor. other: an expression for the number of another value at [f].
    """
    lines: list[str] = []
    for step in steps:
        node = step.node
        if isinstance(node, Affine):
            lines += [f"v = v * {name(node.tensor('scale'))}[f];", f"v = v + {name(node.tensor('shift'))}[f];"]
        elif isinstance(node, Activation):
            lines += C_NONLINEARITY[node.nonlinearity]
            if node.grid is not None:
                return lines + _c_rounding(node, out)
        else:
            lines.append(f"v = v + {other(step.other)};")
    return [*lines, "y[f] = v;"]


def _c_rounding(node: Activation, out: Store) -> list[str]:
    grid, lines = node.grid, []
    assert grid is not None
    if node.divisor != 1:
        lines.append(f"v = v / {c_float(node.divisor)};")
    if node.factor != 1:
        lines.append(f"v = v * {c_float(node.factor)};")
    low, high = int(grid.integers[0]), int(grid.integers[-1])
    kind = "uint8_t" if out.kind == BYTES else "int32_t"
    if grid.levels is None:
        lines += [f"v = v > {c_float(low)} ? v : {c_float(low)};", f"v = v < {c_float(high)} ? v : {c_float(high)};"]
        base = f" - {c_integer(out.base)}" if out.base else ""
        return [*lines, f"y[f] = ({kind})((int32_t){node.rounding}(v){base});"]
    if grid.offset:
        lines.append(f"v = v + {c_float(grid.offset)};")
    rises = [
        f"(v >= {c_float((below + above) / 2)} ? {above - below} : 0)"
        for below, above in itertools.pairwise(grid.integers.tolist())
    ]
    return [*lines, f"y[f] = ({kind})({' + '.join([c_integer(low - out.base), *rises])});"]


def c_float(value: float) -> str:
    """A float32 literal."""
    return f"{float(Float(value)).hex()}f" if value >= 0 else f"({float(Float(value)).hex()}f)"


def c_integer(value: int) -> str:
    """An int literal that can stand in an expression."""
    return str(value) if value >= 0 else f"({value})"
