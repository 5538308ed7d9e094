"""A network as data: nodes in the order in which they run, and tensors by name. No code of training is behind it.

    graph = record(architecture, variables, ...)       # plq.runtime.lowering
    graph.check()                                      # one line if anything does not fit
    for node in graph.nodes:                           # first a Normalize, then Conv, Affine, Activation, ...
        graph.values[node.name]                        # shape, grid and scale of what it gives

The vocabulary is `plq.runtime.nodes.NODES`. Invariants, held by `Graph.check`:

- The input is named "image": uint8 [batch, *image_shape]. Only the first node, a `Normalize`, reads it.
- Every other node reads results of earlier nodes. Names are unique, of letters, digits and "._-", in parts joined by
  "/". Every result is read by a later node but the last one's, which is the output: float32 [batch, ..., classes].
- Each node has exactly the tensors of its `roles`, under "<name>/<role>", in the dtypes given there, floats finite.
- Codes stand for values as `plq.runtime.grid.Grid` says. Zero padding is of real zeros.
"""

import dataclasses
import re
from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np

from plq.errors import UserError
from plq.runtime.fields import from_json, to_json
from plq.runtime.heads import Head, check_heads
from plq.runtime.node import MAX_ELEMENTS, Node, Tensors, Value
from plq.runtime.nodes import NODES, Normalize, Product

IMAGE = "image"
MAX_SIDE, MAX_CHANNELS, MAX_NODES = 4096, 1024, 10_000
NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
MAX_NAME = 200


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network that computes logits from images; see the module's docstring for what holds.

    ``heads``: of a network of several outputs, which are one flat vector here; see `plq.runtime.heads`.
    """

    image_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    tensors: Tensors
    heads: tuple[Head, ...] = ()

    @property
    def output(self) -> str:
        """The name of the logits."""
        return self.nodes[-1].name

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the logits of one image; the last axis is that of the classes."""
        return self.values[self.output].shape

    @property
    def classes(self) -> int:
        """How many there are; of several heads those of the first."""
        return (self.heads[0].shape if self.heads else self.output_shape)[-1]

    @cached_property
    def values(self) -> dict[str, Value]:
        """Shape, grid and scale of the input and of every result. Raises UserError as `check` does."""
        values = {IMAGE: Value(self.image_shape)}
        for node in self.nodes:
            result = node.result([values[name] for name in node.inputs], self.tensors)
            size = int(np.prod(result.shape, dtype=object))
            if size > MAX_ELEMENTS:
                raise node.fail(f"a result of {size:,} numbers", f"{MAX_ELEMENTS:,}")
            values[node.name] = result
        return values

    def kernel(self, node: Product) -> np.ndarray:
        """The weights of a convolution or dense layer as real numbers, float32: those that training multiplied by."""
        kernel = self.tensors[node.tensor("kernel")]
        if node.grid is None:
            return kernel
        levels = (node.grid.integers / node.grid.multiple).astype(np.float32)
        return levels[kernel] * self.tensors[node.tensor("scale")]

    def check(self) -> None:
        """Raise UserError, in one line, unless all invariants hold."""
        for name, size, limit in zip(_AXES, self.image_shape, _LIMITS, strict=True):
            if not 1 <= size <= limit:
                raise UserError(f"image_shape: found {name} {size}, allowed 1 to {limit}")
        if not 1 <= len(self.nodes) <= MAX_NODES:
            raise UserError(f"nodes: found {len(self.nodes)}, allowed 1 to {MAX_NODES:,}")
        self._check_edges()
        self._check_tensors()
        output = self.values[self.output]
        if not output.shape or output.grid is not None:
            found = "values on a grid" if output.grid else "one number"
            raise UserError(f"node {self.output}: is the last one, found {found}, allowed float32 [..., classes]")
        if self.heads:
            check_heads(self.heads, output.shape)

    def _check_edges(self) -> None:
        known, read = {IMAGE}, Counter(name for node in self.nodes for name in node.inputs)
        for index, node in enumerate(self.nodes):
            if not NAME.fullmatch(node.name) or len(node.name) > MAX_NAME:
                raise UserError(f"node {node.name[:40]!r}: allowed letters, digits, ._- and single slashes as name")
            if node.name in known:
                raise UserError(f"node {node.name}: there is another one of this name")
            if len(node.inputs) != (node.arity or max(1, len(node.inputs))):
                raise node.fail(f"{len(node.inputs)} inputs", str(node.arity or "one or more"))
            for name in node.inputs:
                if name not in known:
                    raise node.fail(f"the input {name[:40]!r}", "results of earlier nodes")
            if isinstance(node, Normalize) != (index == 0) or (IMAGE in node.inputs) != (index == 0):
                raise node.fail("it at this place", 'a normalize node first, which alone reads "image"')
            known.add(node.name)
        for node in self.nodes[:-1]:
            if not read[node.name]:
                raise node.fail("a result that is not used", "one that a later node reads")

    def _check_tensors(self) -> None:
        wanted = {node.tensor(role): dtype for node in self.nodes for role, dtype in node.roles().items()}
        for name in sorted(set(wanted) ^ set(self.tensors)):
            raise UserError(f"tensor {name[:80]!r}: {'missing' if name in wanted else 'belongs to no node'}")
        for name, dtype in wanted.items():
            tensor = self.tensors[name]
            if tensor.dtype != dtype:
                raise UserError(f"tensor {name}: found {tensor.dtype}, allowed {np.dtype(dtype)}")
            if dtype is np.float32 and not np.isfinite(tensor).all():
                raise UserError(f"tensor {name}: found numbers that are not finite")

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as plain nested values; fields that have their usual value are left out."""
        nodes = [{"op": node.op, **to_json(node)} for node in self.nodes]
        heads = {"heads": [to_json(head) for head in self.heads]} if self.heads else {}
        return {"image_shape": list(self.image_shape), "nodes": nodes, **heads}


def parse_heads(description: dict[str, Any]) -> tuple[Head, ...]:
    """The outputs from what `Graph.to_json` gives, after `parse_nodes`. Raises UserError for anything else."""
    heads = description.get("heads", [])
    if not isinstance(heads, list) or len(heads) > MAX_NODES or ("heads" in description and not heads):
        raise UserError(f"graph: heads: allowed a list of 1 to {MAX_NODES:,}")
    return tuple(from_json(Head, head, f"head {place}") for place, head in enumerate(heads))


def parse_nodes(description: Any) -> tuple[tuple[int, int, int], tuple[Node, ...]]:
    """Image shape and nodes from what `Graph.to_json` gives. Raises UserError for anything else."""
    if not isinstance(description, dict) or set(description) - {"heads"} != {"image_shape", "nodes"}:
        raise UserError("graph: allowed an object with image_shape and nodes")
    shape, nodes = description["image_shape"], description["nodes"]
    if not isinstance(shape, list) or len(shape) != 3 or any(type(size) is not int for size in shape):
        raise UserError("graph: image_shape: allowed three integers")
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        raise UserError(f"graph: nodes: allowed a list of at most {MAX_NODES:,}")
    return (shape[0], shape[1], shape[2]), tuple(_parse_node(index, node) for index, node in enumerate(nodes))


def _parse_node(index: int, fields: Any) -> Node:
    op = fields.get("op") if isinstance(fields, dict) else None
    if not isinstance(op, str) or op not in NODES:
        raise UserError(f"graph: node {index}: op {str(op)[:40]!r} is unknown; allowed: {', '.join(NODES)}")
    return from_json(NODES[op], {name: value for name, value in fields.items() if name != "op"}, f"node {index} ({op})")


_AXES = ("height", "width", "channels")
_LIMITS = (MAX_SIDE, MAX_SIDE, MAX_CHANNELS)
