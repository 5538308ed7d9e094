"""JAX's primitives as nodes: one function each, called where at least one operand depends on the images.

Each takes the `Builder`, the equation, and its operands: a `Symbol`, a `QuantizedKernel`, or an array.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from plq.runtime import array_nodes as nodes
from plq.runtime.builder import BATCH, Builder, Symbol
from plq.runtime.nodes import Activation, Add
from plq.runtime.products import conv, dot_general

Rule = Callable[..., Symbol]

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


def mapped(function: str) -> Rule:
    """A function of each number."""
    return lambda builder, equation, x: builder.on(x, nodes.Map, function, function=function)


def arithmetic(function: str) -> Rule:
    """A function of two operands, of which one may be known."""

    def rule(builder: Builder, equation: Any, a: Any, b: Any) -> Symbol:
        if isinstance(a, Symbol) and isinstance(b, Symbol):
            return both(builder, function, a, b)
        first = not isinstance(a, Symbol)
        x, constant = (b, a) if first else (a, b)
        return with_constant(builder, function, x, known(constant), first)

    return rule


def both(builder: Builder, function: str, a: Symbol, b: Symbol) -> Symbol:
    """A function of two values of one rank."""
    inputs = [builder.name_of(a), builder.name_of(b)]
    if function == "add" and a.shape == b.shape:
        return builder.symbol(builder.append(Add, "add", inputs))
    return builder.symbol(builder.append(nodes.Arithmetic, function, inputs, function=function))


def with_constant(builder: Builder, function: str, x: Symbol, constant: Any, first: bool) -> Symbol:
    """A function of a value and of numbers that are the same for all images."""
    constant = per_image(builder, np.asarray(constant), x)
    everywhere = constant.reshape(-1)[0] if constant.size == 1 else None
    if (function, everywhere) in (("maximum", -np.inf), ("minimum", np.inf)):
        return x
    if (function, everywhere) == ("maximum", 0):
        return builder.on(x, Activation, "relu", nonlinearity="relu")
    if not np.isfinite(constant).all():
        raise builder.fail("a constant that is not finite", "finite numbers")
    fields = {"function": function, "constant_first": first, "constant": constant}
    return builder.on(x, nodes.ArithmeticConstant, function, **fields)


def per_image(builder: Builder, constant: np.ndarray, x: Symbol) -> np.ndarray:
    """The constant without the batch axis, in the rank of x; axes along which it does not change have length 1."""
    builder.name_of(x)
    if constant.ndim == 0:
        return constant.reshape((1,) * len(x.inner))
    if constant.shape[0] == BATCH and not np.array_equal(constant[0], constant[1], equal_nan=True):
        raise builder.fail("a constant that differs from image to image", "one that is the same for all")
    constant = constant[0]
    for axis in range(constant.ndim):
        head = constant.take([0], axis)
        constant = head if np.array_equal(np.broadcast_to(head, constant.shape), constant) else constant
    return constant


def constant_value(builder: Builder, constant: np.ndarray, like: Symbol) -> Symbol:
    """Known numbers as a value, in the shape of ``like``: zero times it, and the numbers added."""
    zero = with_constant(builder, "multiply", like, np.zeros((), np.float32), False)
    return with_constant(builder, "add", zero, constant, False)


def negated(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    return with_constant(builder, "multiply", x, np.float32(-1), False)


def inverted(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """Not, of 0 and 1."""
    return with_constant(builder, "subtract", x, np.float32(1), True)


def absolute(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    return builder.on(x, Activation, "abs", nonlinearity="abs")


def complement(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """erfc(x) = 1 - erf(x)."""
    return inverted(builder, equation, builder.on(x, nodes.Map, "erf", function="erf"))


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
    return builder.on(x, nodes.Map, "round", function="round")


def clamp(builder: Builder, equation: Any, low: Any, x: Any, high: Any) -> Symbol:
    return arithmetic("minimum")(builder, equation, arithmetic("maximum")(builder, equation, x, low), high)


def select(builder: Builder, equation: Any, which: Any, no: Any, *yes: Any) -> Symbol:
    """``yes`` where ``which``, else ``no``."""
    if len(yes) != 1:
        raise builder.fail("a choice among other than two", "two")
    values = [which, no, yes[0]]
    like = max((value for value in values if isinstance(value, Symbol)), key=lambda value: math.prod(value.shape))
    inputs = [v if isinstance(v, Symbol) else constant_value(builder, known(v), like) for v in values]
    return builder.symbol(builder.append(nodes.Select, "select", [builder.name_of(value) for value in inputs]))


def converted(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """Between float32 and truth values, which are 0 and 1 here."""
    before, after = (np.dtype(atom.aval.dtype) for atom in (equation.invars[0], equation.outvars[0]))
    if before == after or (before, after) == (np.dtype(bool), np.dtype(np.float32)):
        return x
    raise builder.fail(f"a conversion from {before} to {after}", "float32 throughout (dtype=jnp.float32)")


def reduced(function: str) -> Rule:
    def rule(builder: Builder, equation: Any, x: Symbol) -> Symbol:
        axes = equation.params["axes"]
        if 0 in axes:
            raise builder.fail(f"a {function} over the images of a batch", "axes of one image")
        return builder.on(x, nodes.Reduce, function, function=function, axes=tuple(axis - 1 for axis in axes))

    return rule


def reshaped(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """reshape, squeeze, expand_dims: the batch axis stays in front."""
    shape = equation.outvars[0].aval.shape
    if not shape or shape[0] != BATCH or math.prod(shape) != math.prod(x.shape):
        raise builder.fail(f"a reshape of {list(x.shape)} to {list(shape)}", "one that keeps the axis of the images")
    return x if shape == x.shape else builder.on(x, nodes.Reshape, "reshape", shape=shape[1:] or (1,))


def transposed(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    permutation = equation.params["permutation"]
    inner = [axis - (axis > x.batch) for axis in permutation if axis != x.batch]
    name = x.name
    if inner != sorted(inner):
        name = builder.append(nodes.Transpose, "transpose", [x.name], permutation=tuple(inner))
    shape = tuple(x.shape[axis] for axis in permutation)
    return Symbol(name, shape, permutation.index(x.batch))


def broadcasted(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """New axes of length 1, then axes of length 1 repeated."""
    shape, axes = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    if not axes or axes[0] != 0 or shape[0] != BATCH:
        raise builder.fail(f"a broadcast of {list(x.shape)} to {list(shape)}", "one that keeps the axis of the images")
    wide = tuple(x.shape[axes.index(axis)] if axis in axes else 1 for axis in range(len(shape)))
    if wide != x.shape:
        x = builder.on(x, nodes.Reshape, "reshape", shape=wide[1:])
    return x if wide == shape else builder.on(x, nodes.Broadcast, "broadcast", shape=shape[1:])


def concatenated(builder: Builder, equation: Any, *values: Any) -> Symbol:
    """Known parts are made of the first part that is not, cut or repeated to their shape."""
    axis = equation.params["dimension"]
    if axis == 0:
        raise builder.fail("a concatenation along the images of a batch", "another axis")
    like = next(value for value in values if isinstance(value, Symbol))
    inputs = [v if isinstance(v, Symbol) else _known_part(builder, known(v), like, axis) for v in values]
    names = [builder.name_of(value) for value in inputs]
    return builder.symbol(builder.append(nodes.Concatenate, "concatenate", names, axis=axis - 1))


def _known_part(builder: Builder, constant: np.ndarray, like: Symbol, axis: int) -> Symbol:
    length = [1 if i == axis else n for i, n in enumerate(like.shape)]
    part = sliced(builder, like, [0] * len(length), length, [1] * len(length))
    if constant.shape[axis] != 1:
        part = builder.on(part, nodes.Broadcast, "broadcast", shape=constant.shape[1:])
    return constant_value(builder, constant, part)


def sliced(builder: Builder, x: Symbol, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> Symbol:
    """A slice of all axes; the images stay."""
    if (starts[0], stops[0], steps[0]) != (0, BATCH, 1):
        raise builder.fail("a slice of the images of a batch", "slices of one image")
    if (tuple(starts), tuple(stops), set(steps)) == ((0,) * len(x.shape), x.shape, {1}):
        return x
    cuts = {"starts": tuple(starts[1:]), "stops": tuple(stops[1:]), "steps": tuple(steps[1:])}
    return builder.on(x, nodes.Slice, "slice", **cuts)


def static_slice(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    params = equation.params
    return sliced(
        builder, x, params["start_indices"], params["limit_indices"], params["strides"] or (1,) * len(x.shape)
    )


def dynamic_slice(builder: Builder, equation: Any, x: Any, *starts: Any) -> Symbol:
    if not isinstance(x, Symbol) or any(isinstance(start, Symbol) for start in starts):
        raise builder.fail("a slice at a place that depends on the images", "one at a constant place")
    sizes = equation.params["slice_sizes"]
    begin = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, sizes, strict=True)]
    return sliced(builder, x, begin, [s + size for s, size in zip(begin, sizes, strict=True)], [1] * len(sizes))


def gather(builder: Builder, equation: Any, x: Any, indices: Any) -> Symbol:
    """The numbers at known places along one axis."""
    numbers, params = equation.params["dimension_numbers"], equation.params
    if not isinstance(x, Symbol) or isinstance(indices, Symbol) or len(numbers.start_index_map) != 1:
        raise builder.fail("a gather at places that depend on the images, or along several axes", "take along one axis")
    (axis,) = numbers.start_index_map
    sizes = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    places = np.asarray(indices).reshape(-1)
    outside = ((places < 0) | (places >= x.shape[axis])).any()
    if axis == 0 or params["slice_sizes"] != sizes or numbers.operand_batching_dims or outside:
        raise builder.fail("a gather of this form", "jnp.take with constant places along an axis of one image")
    taken = builder.on(x, nodes.Take, "take", axis=axis - 1, indices=tuple(map(int, places)))
    shape = equation.outvars[0].aval.shape
    kept = tuple(n for i, n in enumerate(taken.shape) if i not in numbers.collapsed_slice_dims or len(places) > 1)
    if shape not in (kept, taken.shape):
        raise builder.fail("a gather of this form", "jnp.take with constant places along an axis of one image")
    return taken if shape == taken.shape else builder.on(taken, nodes.Reshape, "reshape", shape=shape[1:])


def reversed_axes(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    for axis in equation.params["dimensions"]:
        if axis == 0:
            raise builder.fail("a reversal of the images of a batch", "another axis")
        indices = tuple(reversed(range(x.shape[axis])))
        x = builder.on(x, nodes.Take, "reverse", axis=axis - 1, indices=indices)
    return x


def padded(builder: Builder, equation: Any, x: Any, value: Any) -> Symbol:
    config = equation.params["padding_config"]
    if not isinstance(x, Symbol) or isinstance(value, Symbol) or config[0] != (0, 0, 0):
        raise builder.fail("padding along the images of a batch, or with what depends on them", "constant padding")
    low, high, interior = (tuple(int(pads[i]) for pads in config[1:]) for i in range(3))
    if not any((*low, *high, *interior)):
        return x
    return builder.on(x, nodes.Pad, "pad", low=low, high=high, interior=interior, value=float(known(value)))


def window(function: str) -> Rule:
    def rule(builder: Builder, equation: Any, x: Symbol) -> Symbol:
        params = equation.params
        sizes, strides, padding = (params[f"{name}"] for name in ("window_dimensions", "window_strides", "padding"))
        plain = set(params["base_dilation"]) | set(params["window_dilation"]) == {1}
        if not plain or (sizes[0], strides[0], tuple(padding[0])) != (1, 1, (0, 0)):
            raise builder.fail("a dilated window, or one over the images of a batch", "a window over one image")
        low, high = (tuple(int(pads[i]) for pads in padding[1:]) for i in range(2))
        fields = {"sizes": tuple(sizes[1:]), "strides": tuple(strides[1:]), "low": low, "high": high}
        return builder.on(x, nodes.Window, f"window_{function}", function=function, **fields)

    return rule


PRIMITIVES: dict[str, Rule] = {
    **{name: mapped(function) for name, function in FUNCTIONS.items()},
    **{name: arithmetic(function) for name, function in ARITHMETIC.items()},
    **{
        f"reduce_{name}": reduced(f)
        for name, f in (("sum", "sum"), ("max", "max"), ("min", "min"), ("prod", "product"))
    },
    **{f"reduce_window_{function}": window(function) for function in ("sum", "max", "min")},
    "neg": negated,
    "not": inverted,
    "abs": absolute,
    "erfc": complement,
    "square": partial(integer_power, power=2),
    "integer_pow": integer_power,
    "round": rounded,
    "clamp": clamp,
    "select_n": select,
    "convert_element_type": converted,
    "reshape": reshaped,
    "squeeze": reshaped,
    "expand_dims": reshaped,
    "transpose": transposed,
    "broadcast_in_dim": broadcasted,
    "concatenate": concatenated,
    "slice": static_slice,
    "dynamic_slice": dynamic_slice,
    "gather": gather,
    "rev": reversed_axes,
    "pad": padded,
    "conv_general_dilated": conv,
    "dot_general": dot_general,
}
