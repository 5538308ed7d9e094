"""JAX's primitives as nodes: one function each, called where at least one operand depends on the images.

Each takes the `Builder`, the equation, and its operands: a `Symbol`, a `QuantizedKernel`, or an array.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from plq.runtime import array_nodes as nodes
from plq.runtime.builder import BATCH, Builder, Symbol
from plq.runtime.elementwise import ELEMENTWISE, Rule, constant_value, finite, known, placed
from plq.runtime.products import conv, dot_general


def reduced(function: str) -> Rule:
    """A sum, maximum, minimum or product over axes of one image."""

    def rule(builder: Builder, equation: Any, x: Symbol) -> Symbol:
        axes = equation.params["axes"]
        if x.batch in axes:
            raise builder.fail(f"a {function} over the images of a batch", "axes of one image")
        inner = tuple(axis - (axis > x.batch) for axis in axes)
        name = builder.append(nodes.Reduce, function, [x.name], function=function, axes=inner)
        return placed(builder, name, x.batch - sum(axis < x.batch for axis in axes))

    return rule


def reshaped(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """reshape, squeeze, expand_dims: the batch axis stays in front."""
    shape = equation.outvars[0].aval.shape
    if not shape or shape[0] != BATCH or math.prod(shape) != math.prod(x.shape):
        raise builder.fail(f"a reshape of {list(x.shape)} to {list(shape)}", "one that keeps the axis of the images")
    return x if shape == x.shape else builder.on(x, nodes.Reshape, "reshape", shape=shape[1:])


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
    """Values one after the other; known ones too."""
    axis = equation.params["dimension"]
    if axis == 0:
        raise builder.fail("a concatenation along the images of a batch", "another axis")
    like = next(value for value in values if isinstance(value, Symbol))
    inputs = [v if isinstance(v, Symbol) else _known_part(builder, known(v), like) for v in values]
    names = [builder.name_of(value) for value in inputs]
    return builder.symbol(builder.append(nodes.Concatenate, "concatenate", names, axis=axis - 1))


def _known_part(builder: Builder, constant: np.ndarray, like: Symbol) -> Symbol:
    part = constant_value(builder, constant, like)
    shape = constant.shape[1:]
    return part if part.inner == shape else builder.on(part, nodes.Broadcast, "broadcast", shape=shape)


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
    return builder.on(
        x, nodes.Pad, "pad", low=low, high=high, interior=interior, value=float(finite(builder, known(value)))
    )


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


def split(builder: Builder, equation: Any, x: Symbol) -> list[Symbol]:
    """Pieces along an axis."""
    axis, ends = equation.params["axis"], np.cumsum(equation.params["sizes"])
    return [
        _cut(builder, x, axis, int(end - size), int(end))
        for size, end in zip(equation.params["sizes"], ends, strict=True)
    ]


def unstack(builder: Builder, equation: Any, x: Symbol) -> list[Symbol]:
    """The parts along an axis, without it."""
    axis = equation.params["axis"]
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    parts = [_cut(builder, x, axis, place, place + 1) for place in range(x.shape[axis])]
    return [builder.on(part, nodes.Reshape, "part", shape=shape[1:]) for part in parts]


def _cut(builder: Builder, x: Symbol, axis: int, start: int, stop: int) -> Symbol:
    starts = [start if i == axis else 0 for i in range(len(x.shape))]
    stops = [stop if i == axis else n for i, n in enumerate(x.shape)]
    return sliced(builder, x, starts, stops, [1] * len(x.shape))


def stack(builder: Builder, equation: Any, *values: Any) -> Symbol:
    """Values along a new axis."""
    axis = equation.params["axis"]
    if axis == 0:
        raise builder.fail("a stack in front of the images of a batch", "another axis")
    like = next(value for value in values if isinstance(value, Symbol))
    symbols = [v if isinstance(v, Symbol) else constant_value(builder, known(v), like) for v in values]
    shape = (*like.shape[1:axis], 1, *like.shape[axis:])
    wide = [builder.on(_filled(builder, v, like), nodes.Reshape, "layer", shape=shape).name for v in symbols]
    return builder.symbol(builder.append(nodes.Concatenate, "stack", wide, axis=axis - 1))


def _filled(builder: Builder, x: Symbol, like: Symbol) -> Symbol:
    return x if x.shape == like.shape else builder.on(x, nodes.Broadcast, "broadcast", shape=like.inner)


def tile(builder: Builder, equation: Any, x: Symbol) -> Symbol:
    """The value several times along each axis."""
    reps = equation.params["reps"]
    if reps[0] != 1 or len(reps) != len(x.shape):
        raise builder.fail("a repetition of the images of a batch", "another axis")
    for axis, count in enumerate(reps):
        if count > 1:
            name = builder.append(nodes.Concatenate, "tile", [builder.name_of(x)] * count, axis=axis - 1)
            x = builder.symbol(name)
    return x


PRIMITIVES: dict[str, Rule] = {
    **ELEMENTWISE,
    **{f"reduce_{name}": reduced("product" if name == "prod" else name) for name in ("sum", "max", "min", "prod")},
    **{f"reduce_window_{function}": window(function) for function in ("sum", "max", "min")},
    "reduce_or": reduced("max"),
    "reduce_and": reduced("min"),
    "split": split,
    "unstack": unstack,
    "stack": stack,
    "tile": tile,
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
