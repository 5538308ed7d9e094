"""The nodes of `plq.runtime.array_nodes` as C: loops over all axes, written for the shapes at hand.

What moves numbers is one strided copy: for each axis a length, and the distance from one number to the next in what is
read and in what is written. What computes reads float32.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from plq.errors import UserError
from plq.exporters.c.chain import c_float
from plq.exporters.c.constants import Constants
from plq.exporters.c.functions import FUNCTION
from plq.exporters.c.plan import REALS, Stage
from plq.runtime import array_nodes as nodes
from plq.runtime.node import Shape

EXPRESSIONS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "maximum": "{0} > {1} ? {0} : {1}", "minimum": "{0} < {1} ? {0} : {1}", "power": "f_power({}, {})",
    "equal": "(float)({} == {})", "not_equal": "(float)({} != {})", "less": "(float)({} < {})",
    "less_equal": "(float)({} <= {})", "greater": "(float)({} > {})", "greater_equal": "(float)({} >= {})",
}  # fmt: skip
REDUCED = {"sum": ("0.0", "t += (double)v;"), "product": ("1.0", "t *= (double)v;"),
           "max": ("-INFINITE", "t = (double)v > t ? (double)v : t;"),
           "min": ("INFINITE", "t = (double)v < t ? (double)v : t;")}  # fmt: skip
INFINITE = "(1e300 * 1e300)"


@dataclasses.dataclass(frozen=True)
class Copy:
    """For each axis ``lengths``, and distances in numbers; ``read`` and ``write`` are where the first number is."""

    lengths: Shape
    from_strides: Shape
    to_strides: Shape
    read: int = 0
    write: int = 0


def strides(shape: Sequence[int]) -> Shape:
    """From one number to the next along each axis, the last axis fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def repeated(shape: Shape, result: Shape) -> Shape:
    """The strides of a value whose axes of length 1 are repeated."""
    return tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(shape, result, strides(shape), strict=True))


def copies(node: nodes.Node, shapes: list[Shape], result: Shape) -> list[Copy] | None:
    """The copies of each input that make a node that moves numbers; None for one that computes."""
    shape, own, out = shapes[0], strides(shapes[0]), strides(result)
    if isinstance(node, nodes.Transpose):
        return [Copy(result, tuple(own[axis] for axis in node.permutation), out)]
    if isinstance(node, nodes.Broadcast):
        return [Copy(result, repeated(shape, result), out)]
    if isinstance(node, nodes.Slice):
        start = sum(at * step for at, step in zip(node.starts, own, strict=True))
        return [Copy(result, tuple(s * n for s, n in zip(own, node.steps, strict=True)), out, start)]
    if isinstance(node, nodes.Concatenate):
        starts = np.cumsum([0, *(given[node.axis] for given in shapes)])
        return [Copy(g, strides(g), out, 0, int(at) * out[node.axis]) for g, at in zip(shapes, starts, strict=False)]
    if isinstance(node, nodes.Pad):
        return [_padding(node, shape, result)]
    return None


def _padding(node: nodes.Pad, shape: Shape, result: Shape) -> Copy:
    """What is kept of the input, between the numbers that pad."""
    lengths, first, places = [], [], []
    for n, low, between, m in zip(shape, node.low, node.interior, result, strict=True):
        kept = [i for i in range(n) if 0 <= low + i * (between + 1) < m]
        lengths.append(len(kept))
        first.append(kept[0] if kept else 0)
        places.append(low + first[-1] * (between + 1))
    own, out = strides(shape), strides(result)
    spread = tuple(s * (between + 1) for s, between in zip(out, node.interior, strict=True))
    at = lambda numbers, steps: sum(n * s for n, s in zip(numbers, steps, strict=True))
    return Copy(tuple(lengths), own, spread, at(first, own), at(places, out))


def array_stage(constants: Constants, index: int, stage: Stage) -> str:
    """Write ``arrayN`` of a stage. Returns its call, as `plq.exporters.c.source.Source` has them."""
    node, plan = stage.node, constants.plan
    assert node is not None
    inputs = [stage.input, *stage.also]
    names = [f"x{place}" for place in range(len(inputs))]
    parameters = [f"const {constants.type(name)} *{x}" for x, name in zip(names, inputs, strict=True)]
    body = _body(constants, node, [_shape(plan.graph.values[name].shape) for name in node.inputs], stage)
    lines = [
        f"/* {stage.output} */",
        f"FN void array{index}({', '.join([*parameters, f'{constants.type(stage.output)} *y'])})",
    ]
    constants.parts.append("\n".join([*lines, "{", *(f"    {line}" for line in body), "}"]))
    given = [f"{{{name}|const {constants.type(name)}}}" for name in inputs]
    return f"array{index}({', '.join([*given, f'{{{stage.output}|{constants.type(stage.output)}}}'])});"


def _shape(shape: Shape) -> Shape:
    return shape or (1,)


def _body(constants: Constants, node: nodes.Node, shapes: list[Shape], stage: Stage) -> list[str]:
    store = constants.plan.stores[stage.output]
    result = _shape(store.shape)
    found = copies(node, shapes, result)
    if found is not None:
        lines = []
        if isinstance(node, nodes.Pad):
            fill = c_float(node.value) if store.kind == REALS else str(-store.base)
            lines = [f"for (int n = 0; n < {math.prod(result)}; n++) y[n] = {fill};"]
        return lines + [line for place, copy in enumerate(found) for line in _copied(copy, f"x{place}")]
    if isinstance(node, nodes.Take):
        return _taken(constants, node, shapes[0], result)
    if isinstance(node, nodes.Reduce):
        inside = tuple(1 if axis in node.axes else n for axis, n in enumerate(shapes[0]))
        window = tuple(n if axis in node.axes else 1 for axis, n in enumerate(shapes[0]))
        return _windows(node.function, shapes[0], inside, window, (1,) * len(window), (0,) * len(window))
    if isinstance(node, nodes.Window):
        return _windows(node.function, shapes[0], result, node.sizes, node.strides, node.low)
    if isinstance(node, nodes.MatMul):
        return _matmul(shapes, result)
    return _elementwise(constants, node, shapes, result)


def _loops(lengths: Sequence[int], letter: str = "i") -> list[str]:
    names = [(f"{letter}{axis}", n) for axis, n in enumerate(lengths) if n > 1]
    return [f"for (int {name} = 0; {name} < {n}; {name}++)" for name, n in names]


def _at(lengths: Sequence[int], steps: Sequence[int], start: int = 0, letter: str = "i") -> str:
    terms = [f"{letter}{axis} * {s}" for axis, (n, s) in enumerate(zip(lengths, steps, strict=True)) if n > 1 and s]
    return " + ".join([*terms, *([str(start)] if start or not terms else [])])


def _nested(loops: list[str], body: list[str]) -> list[str]:
    """Loops one in the other, around statements."""
    if len(body) > 1 or not loops:
        body = ["{", *(f"    {line}" for line in body), "}"]
    for depth, loop in enumerate(reversed(loops)):
        body = [loop, *(f"    {line}" for line in body)] if depth or body[0] != "{" else [f"{loop} {{", *body[1:]]
    return body


def _copied(copy: Copy, x: str) -> list[str]:
    if not all(copy.lengths):
        return [f"(void){x};"]
    read, write = _at(copy.lengths, copy.from_strides, copy.read), _at(copy.lengths, copy.to_strides, copy.write)
    return _nested(_loops(copy.lengths), [f"y[{write}] = {x}[{read}];"])


def _taken(constants: Constants, node: nodes.Take, shape: Shape, result: Shape) -> list[str]:
    places = constants.array(np.array(node.indices, np.int32), f"indices {node.name}")
    steps = [0 if axis == node.axis else s for axis, s in enumerate(strides(shape))]
    place = f"{places}[{f'i{node.axis}' if result[node.axis] > 1 else '0'}] * {strides(shape)[node.axis]}"
    return _nested(_loops(result), [f"y[{_at(result, strides(result))}] = x0[{_at(result, steps)} + {place}];"])


def _elementwise(constants: Constants, node: nodes.Node, shapes: list[Shape], result: Shape) -> list[str]:
    operands = [f"x{place}[{_at(result, repeated(shape, result))}]" for place, shape in enumerate(shapes)]
    if isinstance(node, nodes.Map):
        if node.function not in FUNCTION:
            raise UserError(f"format c: node {node.name} (map): has no {node.function}, allowed {', '.join(FUNCTION)}")
        value = f"f_{node.function}({operands[0]})"
    elif isinstance(node, nodes.Select):
        value = "{0} != 0.0f ? {2} : {1}".format(*operands)
    else:
        assert isinstance(node, nodes.Arithmetic | nodes.ArithmeticConstant)
        if isinstance(node, nodes.ArithmeticConstant):
            name = node.tensor("constant")
            place = _at(result, repeated(_shape(constants.plan.graph.tensors[name].shape), result))
            operands.append(f"{constants.tensor(name)}[{place}]")
            operands = operands[::-1] if node.constant_first else operands
        value = EXPRESSIONS[node.function].format(*operands)
    return _nested(_loops(result), [f"y[{_at(result, strides(result))}] = {value};"])


def _windows(function: str, shape: Shape, result: Shape, sizes: Shape, steps: Shape, low: Shape) -> list[str]:
    """A number of each window, in double precision; positions outside of the value are passed over."""
    start, update = REDUCED[function]
    own, padded = strides(shape), []
    for axis, (n, k, s, before, m) in enumerate(zip(shape, sizes, steps, low, result, strict=True)):
        if before or (m - 1) * s + k > n:
            place = " + ".join(filter(None, [f"i{axis} * {s}" if m > 1 else "", f"j{axis}" if k > 1 else "", "0"]))
            padded.append(f"{place} >= {before} && {place} < {n + before}")
    there = [_at(result, [o * s for o, s in zip(own, steps, strict=True)]), _at(sizes, own, 0, "j")]
    offset = sum(before * o for before, o in zip(low, own, strict=True))
    inner = [f"float v = x0[{there[0]} + {there[1]} - {offset}];", update]
    if padded:
        inner = [f"if ({' && '.join(padded)}) {{", *(f"    {line}" for line in inner), "}"]
    start = start.replace("INFINITE", INFINITE)
    body = [
        f"double t = {start};",
        *_nested(_loops(sizes, "j"), inner),
        f"y[{_at(result, strides(result))}] = (float)t;",
    ]
    return _nested(_loops(result), body)


def _matmul(shapes: list[Shape], result: Shape) -> list[str]:
    (*_, k), (*_, n) = shapes
    a, b = (*strides(shapes[0])[:-1], 0), (*strides(shapes[1])[:-2], 0, 1)
    inner = f"t += (double)x0[{_at(result, a)} + k] * (double)x1[{_at(result, b)} + k * {n}];"
    body = ["double t = 0.0;", f"for (int k = 0; k < {k}; k++)", f"    {inner}"]
    return _nested(_loops(result), [*body, f"y[{_at(result, strides(result))}] = (float)t;"])
