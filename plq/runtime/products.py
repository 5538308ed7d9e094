"""Convolutions and products of matrices in a jaxpr as `Conv`, `Dense` and `MatMul` nodes."""

import math
from typing import Any

import numpy as np

from plq.runtime import array_nodes as nodes
from plq.runtime.builder import BATCH, Builder, Symbol
from plq.runtime.nodes import Conv, Dense
from plq.runtime.steps import QuantizedKernel


def conv(builder: Builder, equation: Any, x: Any, kernel: Any) -> Symbol:
    """Channels last and one or two spatial axes; of a transposed one the zeros between pixels are a `Pad`."""
    params = equation.params
    if not isinstance(x, Symbol) or isinstance(kernel, Symbol):
        raise builder.fail("a convolution with a kernel that depends on the images", "a kernel of variables alone")
    rank = len(x.shape)
    numbers = params["dimension_numbers"]
    last = (0, rank - 1, *range(1, rank - 1))
    if rank not in (3, 4) or params["batch_group_count"] != 1:
        raise builder.fail(f"a convolution with {rank - 2} spatial axes", "1 or 2")
    kernel_last = (rank - 1, rank - 2, *range(rank - 2))
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (last, kernel_last, last):
        raise builder.fail("a convolution with other dimension_numbers", "channels last (NHWC, HWIO)")
    given = kernel if isinstance(kernel, QuantizedKernel) else QuantizedKernel("", np.asarray(kernel))
    given = given.reshaped((1,) * (4 - rank) + given.real.shape)
    x, padding = _spread(builder, x, params["padding"], params["lhs_dilation"])
    strides, dilation = ((1,) * (4 - rank) + tuple(params[name]) for name in ("window_strides", "rhs_dilation"))
    fields = {
        "features": given.real.shape[-1],
        "kernel_size": given.real.shape[:2],
        "strides": strides,
        "padding": ((0, 0),) * (4 - rank) + padding,
        "dilation": dilation,
        "groups": params["feature_group_count"],
        **given.tensors,
    }
    if rank == 3:
        x = builder.on(x, nodes.Reshape, "rows", shape=(1, *x.inner))
    y = builder.symbol(builder.append(Conv, "conv", [builder.name_of(x)], path=given.path, **fields))
    return builder.on(y, nodes.Reshape, "row", shape=y.inner[1:]) if rank == 3 else y


def _spread(builder: Builder, x: Symbol, padding: Any, between: Any) -> tuple[Symbol, tuple[tuple[int, int], ...]]:
    """The input with zeros between its pixels and cropped where the padding is below 0, and the padding left."""
    pads = tuple((int(low), int(high)) for low, high in padding)
    low, high = ((0, *(min(pair[i], 0) for pair in pads), 0) for i in range(2))
    low, high = low[1:], high[1:]
    interior = (*(int(n) - 1 for n in between), 0)
    if any((*low, *high, *interior)):
        x = builder.on(x, nodes.Pad, "spread", low=low, high=high, interior=interior)
    return x, tuple((max(a, 0), max(b, 0)) for a, b in pads)


def dot_general(builder: Builder, equation: Any, a: Any, b: Any) -> Symbol:
    """A product over any axes: with known numbers a `Dense` layer or a 1x1 `Conv`, of two values a `MatMul`."""
    (contract_a, contract_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        return _matmul(builder, a, b, (contract_a, contract_b), (batch_a, batch_b))
    if batch_a or batch_b:
        raise builder.fail("a product with other weights for each place", "one with the same weights")
    if isinstance(a, Symbol):
        return _weighted(builder, a, b, contract_a, contract_b, first=True)
    return _weighted(builder, b, a, contract_b, contract_a, first=False)


def _weighted(builder: Builder, x: Symbol, weights: Any, axes: Any, others: Any, first: bool) -> Symbol:
    """Axes of x contracted with ``others`` of the weights; what is left of x comes first in the result, or last."""
    if x.batch in axes:
        raise builder.fail("a product over the images of a batch", "one over axes of one image")
    given = weights if isinstance(weights, QuantizedKernel) else QuantizedKernel("", np.asarray(weights, np.float32))
    kept = [axis for axis in range(len(x.shape)) if axis not in axes and axis != x.batch]
    free = [axis for axis in range(given.real.ndim) if axis not in others]
    lengths, columns = [x.shape[axis] for axis in kept], [given.real.shape[axis] for axis in free]
    before = sum(axis < x.batch for axis in kept)
    x = _moved(builder, x, [*kept, *axes])
    matrix = _matrix(builder, given, [*others, *free], math.prod(columns))
    x = _as_rows(builder, x, len(kept), len(axes))
    rank = len(x.inner)
    fields = {"features": matrix.real.shape[-1], **matrix.tensors}
    if rank == 3:
        y = builder.append(Conv, "dense", [x.name], path=given.path, kernel_size=(1, 1), **_four(fields))
    else:
        y = builder.append(Dense, "dense", [x.name], path=given.path, **fields)
    return _shaped(builder, builder.symbol(y), lengths, columns, first, before)


def _moved(builder: Builder, x: Symbol, order: list[int]) -> Symbol:
    """The axes of one image in this order, the batch axis in front."""
    inner = [axis - (axis > x.batch) for axis in order]
    name = x.name
    if inner != list(range(len(inner))):
        name = builder.append(nodes.Transpose, "transpose", [x.name], permutation=tuple(inner))
    return builder.symbol(name)


def _as_rows(builder: Builder, x: Symbol, kept: int, contracted: int) -> Symbol:
    """[kept..., contracted...] as [contracted], or as [1 or rows, columns, contracted]."""
    head, tail = x.inner[:kept], x.inner[kept:]
    channels = math.prod(tail)
    if not head:
        shape: tuple[int, ...] = (channels,)
    else:
        shape = (head[0], math.prod(head[1:]), channels) if kept >= 2 else (1, head[0], channels)
    return x if x.inner == shape else builder.on(x, nodes.Reshape, "rows", shape=shape)


def _matrix(builder: Builder, given: QuantizedKernel, order: list[int], columns: int) -> QuantizedKernel:
    """The weights as [in, out]. Quantized ones stay so if they are that already."""
    if given.grid is not None and order == list(range(given.real.ndim)) and given.real.ndim == 2:
        return given
    real = given.real.transpose(order).reshape(-1, columns)
    return QuantizedKernel(given.path, np.ascontiguousarray(real))


def _four(fields: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a dense layer as those of a 1x1 convolution."""
    roles = [role for role in ("kernel", "scale") if role in fields]
    reshaped: dict[str, Any] = {role: fields[role].reshape(1, 1, *fields[role].shape) for role in roles}
    return {**fields, **reshaped}


def _shaped(builder: Builder, y: Symbol, lengths: list[int], columns: list[int], first: bool, before: int) -> Symbol:
    """The product in the shape that JAX gives it: [kept..., columns...], or with the columns first.

    ``before``: how many of the kept axes are in front of the batch axis.
    """
    wide = (*lengths, *columns)
    if y.inner != wide:
        y = builder.on(y, nodes.Reshape, "shaped", shape=wide)
    place = before
    if not first and columns:
        count = len(columns)
        order = (*range(len(lengths), len(wide)), *range(len(lengths)))
        name = builder.append(nodes.Transpose, "transpose", [y.name], permutation=order) if lengths else y.name
        inner = [wide[axis] for axis in order]
        place += count
        return Symbol(name, (*inner[:place], BATCH, *inner[place:]), place)
    return Symbol(y.name, (*wide[:place], BATCH, *wide[place:]), place)


def _matmul(builder: Builder, a: Symbol, b: Symbol, contract: Any, batch: Any) -> Symbol:
    """Two values, the images among the common axes: both are moved to [common..., m, k] and [common..., k, n]."""
    (ka, kb), (ca, cb) = contract, batch
    if a.batch not in ca or b.batch not in cb or ca.index(a.batch) != cb.index(b.batch):
        raise builder.fail("a product over or across the images of a batch", "one for each image")
    common = [n for n in ca if n != a.batch]
    other = [n for n in cb if n != b.batch]
    rows = [n for n in range(len(a.shape)) if n not in (*ka, *ca)]
    columns = [n for n in range(len(b.shape)) if n not in (*kb, *cb)]
    sizes = [[x.shape[n] for n in axes] for x, axes in ((a, common), (a, rows), (b, columns), (a, ka))]
    m, n, k = math.prod(sizes[1]), math.prod(sizes[2]), math.prod(sizes[3])
    left = builder.on(_moved(builder, a, [*common, *rows, *ka]), nodes.Reshape, "left", shape=(*sizes[0], m, k))
    right = builder.on(_moved(builder, b, [*other, *kb, *columns]), nodes.Reshape, "right", shape=(*sizes[0], k, n))
    y = builder.symbol(builder.append(nodes.MatMul, "matmul", [left.name, right.name]))
    inner = [*sizes[0], *sizes[1], *sizes[2]]
    y = builder.on(y, nodes.Reshape, "shaped", shape=tuple(inner))
    place = ca.index(a.batch)
    return Symbol(y.name, (*inner[:place], BATCH, *inner[place:]), place)
