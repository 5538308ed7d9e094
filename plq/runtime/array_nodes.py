"""What networks do with arrays beside the layers of `plq.runtime.nodes`: elementwise functions, shapes, reductions.

Axes are counted without the batch axis. What only moves numbers keeps their grid; all else gives float32.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from plq.runtime.node import MAX_SIZE, Node, Shape, Tensors, Value

FUNCTIONS = (
    "exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "sqrt", "rsqrt", "sin", "cos", "sign", "floor", "ceil",
    "round",
)  # fmt: skip
ARITHMETIC = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "equal", "not_equal", "less", "less_equal",
    "greater", "greater_equal",
)  # fmt: skip
REDUCTIONS = ("sum", "max", "min", "product")
MAX_RANK = 6
LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Map(Node):
    """A function of each number. "round" rounds half to even, "sigmoid" is 1 / (1 + exp(-x))."""

    function: str
    op: ClassVar[str] = "map"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.one_of("function", self.function, FUNCTIONS)
        return Value(inputs[0].shape)


@dataclasses.dataclass(frozen=True)
class Arithmetic(Node):
    """function(a, b) of two values of one rank; axes of length 1 are repeated. Comparisons give 0 and 1."""

    function: str
    op: ClassVar[str] = "arithmetic"
    arity: ClassVar[int | None] = 2

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.one_of("function", self.function, ARITHMETIC)
        return Value(broadcast(self, [value.shape for value in inputs]))


@dataclasses.dataclass(frozen=True)
class ArithmeticConstant(Node):
    """function(x, constant), or function(constant, x) if ``constant_first``; the constant has the rank of x.

    Tensor: "constant", float32; axes of length 1 are repeated.
    """

    function: str
    constant_first: bool = False
    op: ClassVar[str] = "arithmetic_constant"

    def roles(self) -> dict[str, type]:
        return {"constant": np.float32}

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.one_of("function", self.function, ARITHMETIC)
        return Value(broadcast(self, [inputs[0].shape, tensors[self.tensor("constant")].shape]))


@dataclasses.dataclass(frozen=True)
class Select(Node):
    """The third value where the first is not 0, else the second; all of one rank, axes of length 1 are repeated."""

    op: ClassVar[str] = "select"
    arity: ClassVar[int | None] = 3

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        return Value(broadcast(self, [value.shape for value in inputs]))


@dataclasses.dataclass(frozen=True)
class Reduce(Node):
    """Sum, maximum, minimum or product over axes, which are gone then."""

    function: str
    axes: Shape
    op: ClassVar[str] = "reduce"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.one_of("function", self.function, REDUCTIONS)
        shape = inputs[0].shape
        self.require_axes("axes", self.axes, len(shape))
        return Value(tuple(length for axis, length in enumerate(shape) if axis not in self.axes))


@dataclasses.dataclass(frozen=True)
class Reshape(Node):
    """The same numbers in the same order, the last axis fastest, in another shape. Keeps the grid."""

    shape: Shape
    op: ClassVar[str] = "reshape"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.require("shape", self.shape, 1, math.prod(inputs[0].shape))
        if math.prod(self.shape) != math.prod(inputs[0].shape) or len(self.shape) > MAX_RANK:
            raise self.fail(f"shape {list(self.shape)} of {list(inputs[0].shape)}", f"as many numbers, {MAX_RANK} axes")
        return dataclasses.replace(inputs[0], shape=self.shape)


@dataclasses.dataclass(frozen=True)
class Transpose(Node):
    """Axis i of the result is axis ``permutation[i]`` of the input. Keeps the grid."""

    permutation: Shape
    op: ClassVar[str] = "transpose"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        shape = inputs[0].shape
        if sorted(self.permutation) != list(range(len(shape))):
            raise self.fail(f"permutation {list(self.permutation)}", f"each of 0 to {len(shape) - 1} once")
        return dataclasses.replace(inputs[0], shape=tuple(shape[axis] for axis in self.permutation))


@dataclasses.dataclass(frozen=True)
class Broadcast(Node):
    """Axes of length 1 repeated to the lengths of ``shape``. Keeps the grid."""

    shape: Shape
    op: ClassVar[str] = "broadcast"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.require("shape", self.shape, 1)
        if broadcast(self, [inputs[0].shape, self.shape]) != self.shape:
            raise self.fail(f"shape {list(self.shape)} of {list(inputs[0].shape)}", "axes of length 1 repeated")
        return dataclasses.replace(inputs[0], shape=self.shape)


@dataclasses.dataclass(frozen=True)
class Concatenate(Node):
    """Values one after the other along an axis. Keeps the grid and scale if all have the same."""

    axis: int
    op: ClassVar[str] = "concatenate"
    arity: ClassVar[int | None] = None

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        first = inputs[0]
        self.require_axes("axis", (self.axis,), len(first.shape))
        rest = {(*v.shape[: self.axis], *v.shape[self.axis + 1 :], len(v.shape)) for v in inputs}
        if len(rest) > 1:
            raise self.fail(f"shapes {[list(v.shape) for v in inputs]}", f"equal ones but for axis {self.axis}")
        shape = (*first.shape[: self.axis], sum(v.shape[self.axis] for v in inputs), *first.shape[self.axis + 1 :])
        same = all((v.grid, v.scale) == (first.grid, first.scale) for v in inputs)
        return dataclasses.replace(first, shape=shape) if same else Value(shape)


@dataclasses.dataclass(frozen=True)
class Slice(Node):
    """Every ``steps[i]``-th number along axis i, from ``starts[i]`` to before ``stops[i]``. Keeps the grid."""

    starts: Shape
    stops: Shape
    steps: Shape
    op: ClassVar[str] = "slice"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        shape = inputs[0].shape
        self.require("steps", self.steps, 1)
        legal = {len(shape)} == {len(self.starts), len(self.stops), len(self.steps)} and all(
            0 <= start < stop <= n for start, stop, n in zip(self.starts, self.stops, shape, strict=True)
        )
        if not legal:
            raise self.fail(f"starts {list(self.starts)}, stops {list(self.stops)}", f"slices of {list(shape)}")
        lengths = zip(self.starts, self.stops, self.steps, strict=True)
        return dataclasses.replace(inputs[0], shape=tuple(-(-(stop - start) // step) for start, stop, step in lengths))


@dataclasses.dataclass(frozen=True)
class Pad(Node):
    """``low`` numbers before and ``high`` after each axis (below 0: cut off), ``interior`` between two neighbours.

    All of them are ``value``. Keeps the grid if that is 0: a zero is a real zero, also where the grid has no code.
    """

    low: Shape
    high: Shape
    interior: Shape
    value: float = 0.0
    op: ClassVar[str] = "pad"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        shape = inputs[0].shape
        if not abs(self.value) <= LARGEST:
            raise self.fail(f"value {self.value}", "a finite number")
        if {len(shape)} != {len(self.low), len(self.high), len(self.interior)}:
            raise self.fail(f"padding of {len(self.low)} axes", str(len(shape)))
        self.require("low", self.low, -MAX_SIZE)
        self.require("high", self.high, -MAX_SIZE)
        self.require("interior", self.interior, 0)
        spread = [n + (n - 1) * i for n, i in zip(shape, self.interior, strict=True)]
        lengths = tuple(n + a + b for n, a, b in zip(spread, self.low, self.high, strict=True))
        rooms = [min(n, n + a, n + b) for n, a, b in zip(spread, self.low, self.high, strict=True)]
        if min(*rooms, *lengths) < 1:
            raise self.fail(f"low {list(self.low)}, high {list(self.high)}", "at least one number along each axis")
        return dataclasses.replace(inputs[0], shape=lengths) if self.value == 0 else Value(lengths)


@dataclasses.dataclass(frozen=True)
class Window(Node):
    """Sum, maximum or minimum of each window along all axes; padding stands for the number that changes nothing.

    Maximum and minimum keep the grid.
    """

    function: str
    sizes: Shape
    strides: Shape
    low: Shape
    high: Shape
    op: ClassVar[str] = "window"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.one_of("function", self.function, ("sum", "max", "min"))
        shape = inputs[0].shape
        if {len(shape)} != {len(self.sizes), len(self.strides), len(self.low), len(self.high)}:
            raise self.fail(f"a window of {len(self.sizes)} axes", str(len(shape)))
        self.require("sizes", self.sizes, 1)
        self.require("strides", self.strides, 1)
        for name, pads in (("low", self.low), ("high", self.high)):
            if any(not 0 <= pad < size for pad, size in zip(pads, self.sizes, strict=True)):
                raise self.fail(f"{name} {list(pads)}", "padding below the window's size")
        rooms = [n + a + b - k for n, a, b, k in zip(shape, self.low, self.high, self.sizes, strict=True)]
        if min(rooms) < 0:
            raise self.fail(f"a value {list(shape)}", f"at least the window {list(self.sizes)}, padded")
        lengths = tuple(room // stride + 1 for room, stride in zip(rooms, self.strides, strict=True))
        return Value(lengths) if self.function == "sum" else dataclasses.replace(inputs[0], shape=lengths)


@dataclasses.dataclass(frozen=True)
class Take(Node):
    """The numbers at ``indices`` along an axis, in this order: nearest-neighbour resizing. Keeps the grid."""

    axis: int
    indices: Shape
    op: ClassVar[str] = "take"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        shape = inputs[0].shape
        self.require_axes("axis", (self.axis,), len(shape))
        self.require("indices", (len(self.indices),), 1)
        self.require("indices", self.indices, 0, shape[self.axis] - 1)
        return dataclasses.replace(inputs[0], shape=(*shape[: self.axis], len(self.indices), *shape[self.axis + 1 :]))


@dataclasses.dataclass(frozen=True)
class MatMul(Node):
    """[..., m, k] times [..., k, n], with equal axes before: float32 [..., m, n]."""

    op: ClassVar[str] = "matmul"
    arity: ClassVar[int | None] = 2

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        a, b = (value.shape for value in inputs)
        if len(a) != len(b) or len(a) < 2 or a[:-2] != b[:-2] or a[-1] != b[-2]:
            raise self.fail(f"shapes {list(a)} and {list(b)}", "[..., m, k] and [..., k, n]")
        return Value((*a[:-1], b[-1]))


def broadcast(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The common shape. Raises UserError if there is none."""
    if len({len(shape) for shape in shapes}) > 1:
        raise node.fail(f"shapes {[list(shape) for shape in shapes]}", "as many axes in each")
    lengths = [set(axis) - {1} or {1} for axis in zip(*shapes, strict=True)]
    if any(len(found) > 1 for found in lengths):
        raise node.fail(f"shapes {[list(shape) for shape in shapes]}", "equal axes, or axes of length 1")
    return tuple(found.pop() for found in lengths)


ARRAY_NODES: tuple[type[Node], ...] = (
    Map, Arithmetic, ArithmeticConstant, Select, Reduce, Reshape, Transpose, Broadcast, Concatenate, Slice, Pad, Window,
    Take, MatMul,
)  # fmt: skip
