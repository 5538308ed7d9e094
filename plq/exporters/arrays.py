"""The nodes of `plq.runtime.array_nodes` in the operations of ONNX, one function each.

A value [height, width, channels] has its channels first in ONNX (`plq.exporters.translate`); values of other ranks have
their axes as they are. What mixes axes of both kinds works on channels last, with a Transpose before and behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from plq.runtime import array_nodes as nodes

if TYPE_CHECKING:
    from plq.exporters.translate import Translator

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
FUNCTIONS = {
    "exp": "Exp", "log": "Log", "tanh": "Tanh", "sigmoid": "Sigmoid", "erf": "Erf", "sqrt": "Sqrt", "sin": "Sin",
    "cos": "Cos", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round",
}  # fmt: skip
ARITHMETIC = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "maximum": "Max", "minimum": "Min",
    "power": "Pow", "equal": "Equal", "not_equal": "Equal", "less": "Less", "less_equal": "LessOrEqual",
    "greater": "Greater", "greater_equal": "GreaterOrEqual",
}  # fmt: skip
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def onnx_axis(axis: int, rank: int) -> int:
    """Where an axis of one image, of ``rank`` axes, is in ONNX."""
    return [2, 3, 1][axis] if rank == 3 else axis + 1


def in_onnx_order(per_axis: Sequence[Any]) -> list[Any]:
    """What is given for each axis of one image, in ONNX's order of them, without the batch axis."""
    return [per_axis[2], per_axis[0], per_axis[1]] if len(per_axis) == 3 else list(per_axis)


def channels_last(to: Translator, x: str, rank: int) -> str:
    """An ONNX value with its axes as in the frozen graph."""
    return to.writer.add("Transpose", [x], f"{x}/last", perm=LAST) if rank == 3 else x


def channels_first(to: Translator, x: str, rank: int) -> str:
    """The reverse of `channels_last`."""
    return to.writer.add("Transpose", [x], f"{x}/first", perm=FIRST) if rank == 3 else x


def mapped(to: Translator, node: nodes.Map) -> None:
    x, name = to.real(node.inputs[0]), node.name
    one = to.writer.constant(np.float32(1), "one")
    if node.function in FUNCTIONS:
        result = to.writer.add(FUNCTIONS[node.function], [x], name)
    elif node.function == "rsqrt":
        result = to.writer.add("Reciprocal", [to.writer.add("Sqrt", [x], f"{name}/sqrt")], name)
    elif node.function == "log1p":
        result = to.writer.add("Log", [to.writer.add("Add", [x, one], f"{name}/plus")], name)
    else:  # expm1
        result = to.writer.add("Sub", [to.writer.add("Exp", [x], f"{name}/exp"), one], name)
    to.reals[node.name] = result


def arithmetic(to: Translator, node: nodes.Arithmetic) -> None:
    to.reals[node.name] = _applied(to, node.function, [to.real(name) for name in node.inputs], node.name)


def arithmetic_constant(to: Translator, node: nodes.ArithmeticConstant) -> None:
    constant = to.graph.tensors[node.tensor("constant")]
    if constant.ndim == 3:
        constant = constant.transpose(2, 0, 1)
    operands = [to.real(node.inputs[0]), to.writer.constant(constant[None], node.tensor("constant"))]
    to.reals[node.name] = _applied(to, node.function, operands[:: -1 if node.constant_first else 1], node.name)


def _applied(to: Translator, function: str, operands: list[str], name: str) -> str:
    y = to.writer.add(ARITHMETIC[function], operands, name)
    if function not in COMPARISONS:
        return y
    if function == "not_equal":
        y = to.writer.add("Not", [y], f"{name}/not")
    return to.writer.add("Cast", [y], f"{name}/number", to=TensorProto.FLOAT)


def select(to: Translator, node: nodes.Select) -> None:
    which, no, yes = (to.real(name) for name in node.inputs)
    which = to.writer.add("Cast", [which], f"{node.name}/which", to=TensorProto.BOOL)
    to.reals[node.name] = to.writer.add("Where", [which, yes, no], node.name)


def reduce(to: Translator, node: nodes.Reduce) -> None:
    """ReduceSum has its axes as an input since opset 13, the others as an attribute."""
    given, left = (len(to.graph.values[name].shape) for name in (node.inputs[0], node.name))
    alike = given != 3 or left == 1
    x, axes = to.real(node.inputs[0]), [onnx_axis(axis, given) for axis in node.axes]
    if not alike:
        x, axes = channels_last(to, x, given), [axis + 1 for axis in node.axes]
    if node.function == "sum":
        numbers = to.writer.constant(np.array(axes, np.int64), f"{node.name}/axes")
        y = to.writer.add("ReduceSum", [x, numbers], node.name, keepdims=0)
    else:
        op = {"max": "ReduceMax", "min": "ReduceMin", "product": "ReduceProd"}[node.function]
        y = to.writer.add(op, [x], node.name, axes=axes, keepdims=0)
    to.reals[node.name] = channels_first(to, y, left)


def _moved(op: str, argument: Callable[[Any], dict[str, Any]]) -> Callable[[Translator, Any], None]:
    """A node that moves numbers about on channels last. ``argument``: a constant input by its name, or attributes."""

    def translate(to: Translator, node: Any) -> None:
        given, left = (len(to.graph.values[name].shape) for name in (node.inputs[0], node.name))

        def function(x: str, zero: Any) -> str:
            options, inputs = argument(node), [channels_last(to, x, given)]
            for role in [role for role, value in options.items() if isinstance(value, np.ndarray)]:
                inputs.append(to.writer.constant(options.pop(role), f"{node.name}/{role}"))
            return channels_first(to, to.writer.add(op, inputs, node.name, **options), left)

        to.unchanged(node, function)

    return translate


def concatenate(to: Translator, node: nodes.Concatenate) -> None:
    axis = onnx_axis(node.axis, len(to.graph.values[node.name].shape))
    joined = lambda names: to.writer.add("Concat", names, node.name, axis=axis)
    if not to.joined_codes(node, joined):
        to.reals[node.name] = joined([to.real(name) for name in node.inputs])


def slice_(to: Translator, node: nodes.Slice) -> None:
    rank = len(node.starts)
    axes = [onnx_axis(axis, rank) for axis in range(rank)]
    fields = {"starts": node.starts, "stops": node.stops, "axes": axes, "steps": node.steps}

    def cut(x: str, zero: Any) -> str:
        how = [to.writer.constant(np.array(n, np.int64), f"{node.name}/{role}") for role, n in fields.items()]
        return to.writer.add("Slice", [x, *how], node.name)

    to.unchanged(node, cut)


def take(to: Translator, node: nodes.Take) -> None:
    axis = onnx_axis(node.axis, len(to.graph.values[node.name].shape))

    def taken(x: str, zero: Any) -> str:
        indices = to.writer.constant(np.array(node.indices, np.int64), f"{node.name}/indices")
        return to.writer.add("Gather", [x, indices], node.name, axis=axis)

    to.unchanged(node, taken)


def pad(to: Translator, node: nodes.Pad) -> None:
    """Numbers between neighbours: each gets some behind it on an axis of its own, and the last ones are cut off."""
    shape = in_onnx_order(to.graph.values[node.inputs[0]].shape)
    interior, low, high = (in_onnx_order(numbers) for numbers in (node.interior, node.low, node.high))

    def padded(x: str, zero: Any) -> str:
        value = to.writer.constant(zero if node.value == 0 else np.float32(node.value), f"{node.name}/value")
        integers = lambda numbers, role: to.writer.constant(np.array(numbers, np.int64), f"{node.name}/{role}")
        lengths = list(shape)
        for axis, between in enumerate(interior):
            if between:
                split = [0, *lengths[: axis + 1], 1, *lengths[axis + 1 :]]
                x = to.writer.add("Reshape", [x, integers(split, "split")], f"{node.name}/split")
                behind = [0] * (len(split) + axis + 2) + [between] + [0] * (len(split) - axis - 3)
                x = to.writer.add("Pad", [x, integers(behind, "behind"), value], f"{node.name}/behind")
                lengths[axis] *= 1 + between
                x = to.writer.add("Reshape", [x, integers([0, *lengths], "joined")], f"{node.name}/joined")
        ends = [n - i * (i > 0) for n, i in zip(high, interior, strict=True)]
        return to.writer.add("Pad", [x, integers([0, *low, 0, *ends], "pads"), value], node.name)

    if node.value == 0:
        to.unchanged(node, padded)
    else:
        to.reals[node.name] = padded(to.real(node.inputs[0]), np.float32(0))


def window(to: Translator, node: nodes.Window) -> None:
    """Pooling over the axes before the last one, which ONNX has in front; a minimum is the maximum of the negatives."""
    rank = len(node.sizes)
    if rank < 2 or (node.sizes[-1], node.strides[-1]) != (1, 1):
        raise node.fail(f"a window {list(node.sizes)}", "windows that do not span channels, in ONNX")
    front, back = ([0, rank, *range(1, rank)], [0, *range(2, rank + 1), 1]) if rank != 3 else ([], [])
    shape: dict[str, Any] = {
        "kernel_shape": node.sizes[:-1],
        "strides": node.strides[:-1],
        "pads": [*node.low[:-1], *node.high[:-1]],
    }

    def pooled(x: str, zero: Any) -> str:
        x = to.writer.add("Transpose", [x], f"{node.name}/front", perm=front) if front else x
        if node.function == "sum":
            x = to.writer.add("AveragePool", [x], f"{node.name}/mean", count_include_pad=1, **shape)
            count = to.writer.constant(np.float32(np.prod(node.sizes)), f"{node.name}/count")
            x = to.writer.add("Mul", [x, count], node.name)
        else:
            x = to.writer.add("Neg", [x], f"{node.name}/negative") if node.function == "min" else x
            x = to.writer.add("MaxPool", [x], node.name, **shape)
            x = to.writer.add("Neg", [x], f"{node.name}/positive") if node.function == "min" else x
        return to.writer.add("Transpose", [x], f"{node.name}/back", perm=back) if back else x

    if node.function == "max":
        to.unchanged(node, pooled)
    else:
        to.reals[node.name] = pooled(to.real(node.inputs[0]), np.float32(0))


def matmul(to: Translator, node: nodes.MatMul) -> None:
    rank = len(to.graph.values[node.name].shape)
    operands = [channels_last(to, to.real(name), rank) for name in node.inputs]
    to.reals[node.name] = channels_first(to, to.writer.add("MatMul", operands, node.name), rank)


ARRAYS: dict[str, Callable[[Translator, Any], None]] = {
    "map": mapped,
    "arithmetic": arithmetic,
    "arithmetic_constant": arithmetic_constant,
    "select": select,
    "reduce": reduce,
    "reshape": _moved("Reshape", lambda node: {"shape": np.array([0, *node.shape], np.int64)}),
    "transpose": _moved("Transpose", lambda node: {"perm": [0, *(axis + 1 for axis in node.permutation)]}),
    "broadcast": _moved("Expand", lambda node: {"shape": np.array([1, *node.shape], np.int64)}),
    "concatenate": concatenate,
    "slice": slice_,
    "pad": pad,
    "window": window,
    "take": take,
    "matmul": matmul,
}
