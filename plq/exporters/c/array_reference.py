"""The nodes of `plq.runtime.array_nodes` in NumPy, with the bits of the C in `plq.exporters.c.arrays`."""

import itertools

import numpy as np

from plq.exporters.c.functions import ARITHMETIC, FUNCTION
from plq.runtime import array_nodes as nodes

Float = np.float32
START = {"sum": 0.0, "product": 1.0, "max": -np.inf, "min": np.inf}
UPDATE = {"sum": np.add, "product": np.multiply, "max": np.maximum, "min": np.minimum}


def compute(node: nodes.Node, inputs: list[np.ndarray], constant: np.ndarray | None) -> np.ndarray:
    """The result of a node, in the type of its inputs. Arrays have the batch axis in front."""
    x = inputs[0]
    if isinstance(node, nodes.Transpose):
        return x.transpose(0, *(axis + 1 for axis in node.permutation))
    if isinstance(node, nodes.Broadcast):
        return np.broadcast_to(x, (len(x), *node.shape))
    if isinstance(node, nodes.Slice):
        return x[(slice(None), *map(slice, node.starts, node.stops, node.steps))]
    if isinstance(node, nodes.Concatenate):
        return np.concatenate(inputs, node.axis + 1)
    if isinstance(node, nodes.Pad):
        return _padded(node, x)
    if isinstance(node, nodes.Take):
        return np.take(x, node.indices, node.axis + 1)
    if isinstance(node, nodes.Map):
        return FUNCTION[node.function](x)
    if isinstance(node, nodes.Select):
        return np.where(x != 0, inputs[2], inputs[1])
    if isinstance(node, nodes.Arithmetic | nodes.ArithmeticConstant):
        operands = inputs if constant is None else [x, constant[None]]
        first = isinstance(node, nodes.ArithmeticConstant) and node.constant_first
        return ARITHMETIC[node.function](*operands[:: -1 if first else 1]).astype(Float)
    if isinstance(node, nodes.Reduce):
        shape = x.shape[1:]
        sizes = tuple(n if axis in node.axes else 1 for axis, n in enumerate(shape))
        kept = tuple(n for axis, n in enumerate(shape) if axis not in node.axes)
        rank = len(shape)
        return _windows(node.function, x, sizes, (1,) * rank, (0,) * rank, (0,) * rank).reshape(len(x), *kept)
    if isinstance(node, nodes.Window):
        return _windows(node.function, x, node.sizes, node.strides, node.low, node.high)
    assert isinstance(node, nodes.MatMul)
    total = np.zeros((*x.shape[:-1], inputs[1].shape[-1]))
    for k in range(x.shape[-1]):
        total = total + x[..., k, None].astype(np.float64) * inputs[1][..., k, None, :].astype(np.float64)
    return total.astype(Float)


def _padded(node: nodes.Pad, x: np.ndarray) -> np.ndarray:
    shape = [n + (n - 1) * i for n, i in zip(x.shape[1:], node.interior, strict=True)]
    spread = np.full((len(x), *shape), node.value, x.dtype)
    spread[(slice(None), *(slice(None, None, i + 1) for i in node.interior))] = x
    pads = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in zip(node.low, node.high, strict=True))]
    wide = np.pad(spread, pads, constant_values=node.value)
    cuts = [slice(max(-a, 0), n - max(-b, 0)) for a, b, n in zip(node.low, node.high, wide.shape[1:], strict=True)]
    return wide[(slice(None), *cuts)]


def _windows(function: str, x: np.ndarray, sizes, strides, low, high) -> np.ndarray:
    """Position after position of the window, in double precision as in C; integers stay integers."""
    start = START[function]
    pads = [(0, 0), *zip(low, high, strict=True)]
    wide = np.pad(x.astype(np.float64), pads, constant_values=start)
    lengths = [(n - k) // s + 1 for n, k, s in zip(wide.shape[1:], sizes, strides, strict=True)]
    total = np.full((len(x), *lengths), start)
    for corner in itertools.product(*map(range, sizes)):
        spans = zip(corner, lengths, strides, strict=True)
        cuts = [slice(at, at + (length - 1) * step + 1, step) for at, length, step in spans]
        total = UPDATE[function](total, wide[(slice(None), *cuts)])
    return total.astype(x.dtype)
