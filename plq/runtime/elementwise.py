"""JAX's elementwise primitives as nodes: functions of each number, arithmetic, comparisons, choices.

They work wherever the axis of the images is. Truth values and integers made of them are 0 and 1, ... in float32.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from plq.runtime import array_nodes as nodes
from plq.runtime.array_nodes import Broadcast, Reshape, Slice
from plq.runtime.builder import BATCH, Builder, Symbol
from plq.runtime.nodes import LARGEST, Activation, Add

Rule = Callable[..., Any]

FUNCTIONS = {
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "tanh": "tanh", "logistic": "sigmoid", "erf": "erf",
    "sqrt": "sqrt", "rsqrt": "rsqrt", "sin": "sin", "cos": "cos", "sign": "sign", "floor": "floor", "ceil": "ceil",
}  # fmt: skip
ARITHMETIC = {
    "add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "max": "maximum",
    "min": "minimum", "pow": "power", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal", "and": "minimum", "or": "maximum",
}  # fmt: skip


def known(value: Any) -> np.ndarray:
    """The numbers of an operand that does not depend on the images, float32."""
    return np.asarray(getattr(value, "real", value), np.float32)


def placed(builder: Builder, name: str, batch: int) -> Symbol:
    """The result of a node, with the axis of the images at this place."""
    inner = builder.values[name].shape
    return Symbol(name, (*inner[:batch], BATCH, *inner[batch:]), batch)


def on_each(builder: Builder, x: Symbol, kind: type[nodes.Node], op: str, **fields: Any) -> Symbol:
    """The result of a node that works on each number of x alone."""
    return placed(builder, builder.append(kind, op, [x.name], **fields), x.batch)


def mapped(function: str) -> Rule:
    """A function of each number."""
    return lambda builder, equation, x: on_each(builder, x, nodes.Map, function, function=function)


def arithmetic(function: str) -> Rule:
    """A function of two operands, of which one may be known."""

    def rule(builder: Builder, equation: Any, a: Any, b: Any) -> Symbol:
        if function == "divide" and equation.outvars[0].aval.dtype.kind in "iu":
            raise builder.fail("a division of integers", "one of float32")
        if isinstance(a, Symbol) and isinstance(b, Symbol):
            return both(builder, function, a, b)
        first = not isinstance(a, Symbol)
        x, constant = (b, a) if first else (a, b)
        return with_constant(builder, function, x, known(constant), first)

    return rule


def both(builder: Builder, function: str, a: Symbol, b: Symbol) -> Symbol:
    """A function of two values of one rank."""
    if a.batch != b.batch:
        raise builder.fail("two values whose images are along different axes", "the same axis")
    if function == "add" and a.shape == b.shape:
        return placed(builder, builder.append(Add, "add", [a.name, b.name]), a.batch)
    return placed(builder, builder.append(nodes.Arithmetic, function, [a.name, b.name], function=function), a.batch)


def with_constant(builder: Builder, function: str, x: Symbol, constant: Any, first: bool) -> Symbol:
    """A function of a value and of numbers that are the same for all images."""
    constant = per_image(builder, np.asarray(constant, np.float32), x)
    everywhere = constant.reshape(-1)[0] if constant.size == 1 else None
    if (function, everywhere) in (("maximum", -np.inf), ("minimum", np.inf)):
        return x
    if (function, everywhere) == ("maximum", 0):
        return on_each(builder, x, Activation, "relu", nonlinearity="relu")
    fields = {"function": function, "constant_first": first, "constant": finite(builder, constant)}
    return on_each(builder, x, nodes.ArithmeticConstant, function, **fields)


def finite(builder: Builder, constant: np.ndarray) -> np.ndarray:
    """The constant with the largest numbers in the places of infinite ones, as in masks."""
    if np.isnan(constant).any():
        raise builder.fail("a constant that is no number (NaN)", "numbers")
    return np.clip(constant, -LARGEST, LARGEST)


def per_image(builder: Builder, constant: np.ndarray, x: Symbol) -> np.ndarray:
    """The constant without the batch axis, in the rank of x; axes along which it does not change have length 1."""
    if constant.ndim == 0:
        return constant.reshape((1,) * len(x.inner))
    images = np.moveaxis(constant, x.batch, 0)
    if len(images) == BATCH and not np.array_equal(images[0], images[1], equal_nan=True):
        raise builder.fail("a constant that differs from image to image", "one that is the same for all")
    constant = images[0]
    for axis in range(constant.ndim):
        head = constant.take([0], axis)
        same = np.array_equal(np.broadcast_to(head, constant.shape), constant, equal_nan=True)
        constant = head if same else constant
    return constant


def constant_value(builder: Builder, constant: Any, like: Symbol) -> Symbol:
    """Known numbers as a value with the images where ``like`` has them: one pixel of the image times 0, and added."""
    image = next(iter(builder.nodes))
    rank = len(builder.values[image].shape)
    pixel = builder.append(Slice, "zero", [image], starts=(0,) * rank, stops=(1,) * rank, steps=(1,) * rank)
    shape = (1,) * len(like.inner)
    zero = placed(builder, builder.append(Reshape, "zero", [pixel], shape=shape), like.batch)
    zero = with_constant(builder, "multiply", zero, np.float32(0), False)
    return with_constant(builder, "add", zero, constant, False)


def negated(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    return with_constant(builder, "multiply", x, np.float32(-1), False)


def inverted(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """Not, of 0 and 1."""
    return with_constant(builder, "subtract", x, np.float32(1), True)


def absolute(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    return on_each(builder, x, Activation, "abs", nonlinearity="abs")


def is_finite(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    return with_constant(builder, "less_equal", absolute(builder, equation, x), np.float32(LARGEST), False)


def complement(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """erfc(x) = 1 - erf(x)."""
    return inverted(builder, equation, on_each(builder, x, nodes.Map, "erf", function="erf"))


def integer_power(builder: Builder, equation: Any, x: Symbol, power: int | None = None) -> Symbol:
    power = equation.params["y"] if power is None else power
    if not 1 <= abs(power) <= 8:
        raise builder.fail(f"an integer power of {power}", "-8 to 8 without 0")
    result = x
    for _ in range(abs(power) - 1):
        result = both(builder, "multiply", result, x)
    return result if power > 0 else with_constant(builder, "divide", result, np.float32(1), True)


def rounded(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    if int(equation.params["rounding_method"]) != 1:
        raise builder.fail("rounding half away from zero", "rounding half to even, as jnp.round does")
    return on_each(builder, x, nodes.Map, "round", function="round")


def clamp(builder: Builder, equation: Any, low: Any, x: Any, high: Any) -> Any:
    """min(max(x, low), high)."""
    lower = arithmetic("maximum")(builder, equation, x, low) if isinstance(x, Symbol) or isinstance(low, Symbol) else x
    return arithmetic("minimum")(builder, equation, lower, high)


def select(builder: Builder, equation: Any, which: Any, no: Any, *yes: Any) -> Any:
    """``yes`` where ``which``, else ``no``."""
    if len(yes) != 1:
        raise builder.fail("a choice among other than two", "two")
    values = [which, no, yes[0]]
    like = max((value for value in values if isinstance(value, Symbol)), key=lambda value: math.prod(value.shape))
    if not isinstance(which, Symbol):
        decided = known(which)
        if decided.all() or not decided.any():
            chosen = yes[0] if decided.all() else no
            return _whole(builder, chosen, like, equation.outvars[0].aval.shape)
    inputs = [v if isinstance(v, Symbol) else constant_value(builder, known(v), like) for v in values]
    if len({value.batch for value in inputs}) > 1:
        raise builder.fail("values whose images are along different axes", "the same axis")
    name = builder.append(nodes.Select, "select", [value.name for value in inputs])
    return placed(builder, name, like.batch)


def _whole(builder: Builder, chosen: Any, like: Symbol, shape: tuple[int, ...]) -> Any:
    """What is chosen everywhere, in the shape of the result; a known one stays known."""
    if not isinstance(chosen, Symbol):
        return np.broadcast_to(np.asarray(getattr(chosen, "real", chosen)), shape)
    if chosen.shape == shape:
        return chosen
    inner = (*shape[: like.batch], *shape[like.batch + 1 :])
    return on_each(builder, chosen, Broadcast, "broadcast", shape=inner)


def converted(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """Between float32, truth values, which are 0 and 1 here, and integers made of these."""
    before, after = (np.dtype(atom.aval.dtype) for atom in (equation.invars[0], equation.outvars[0]))
    whole = before.kind in "biu"
    if before == after or (whole and (after == np.float32 or after.kind in "iu")):
        return x
    if after == np.dtype(bool):
        return with_constant(builder, "not_equal", x, np.float32(0), False)
    raise builder.fail(f"a conversion from {before} to {after}", "float32 throughout (dtype=jnp.float32)")


def reduced_precision(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    bits = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    if bits != (8, 23):
        raise builder.fail(f"a precision of {bits[1]} bits", "that of float32")
    return x


ELEMENTWISE: dict[str, Rule] = {
    **{name: mapped(function) for name, function in FUNCTIONS.items()},
    **{name: arithmetic(function) for name, function in ARITHMETIC.items()},
    "neg": negated,
    "not": inverted,
    "abs": absolute,
    "is_finite": is_finite,
    "erfc": complement,
    "square": lambda builder, equation, x: integer_power(builder, equation, x, 2),
    "integer_pow": integer_power,
    "round": rounded,
    "clamp": clamp,
    "select_n": select,
    "convert_element_type": converted,
    "reduce_precision": reduced_precision,
}
