"""A graph in the making: nodes and tensors so far, with names for what comes next."""

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from plq.errors import UserError
from plq.runtime.graph import MAX_NAME
from plq.runtime.node import Node, Value

BATCH = 2  # of the images that a network is traced on


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A result that depends on the images: the node that gives it, and the shape that it has in the trace.

    ``batch``: the axis of ``shape`` that is the images'.
    """

    name: str
    shape: tuple[int, ...]
    batch: int = 0

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape without the batch axis."""
        return (*self.shape[: self.batch], *self.shape[self.batch + 1 :])


class Builder:
    """Appends nodes. Tensors are kept in the type that they come in; `Graph` wants float32 (`plq.runtime.simplify`)."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.values: dict[str, Value] = {}
        self.path = ""  # of the module at hand, which the names of its nodes begin with

    def append(self, kind: type[Node], op: str, inputs: Sequence[str], path: str = "", **fields: Any) -> str:
        """Append a node and give its name. Fields that are its roles are its tensors.

        Args:
            op: what it is called, inside the module at hand unless ``path`` says all of its name.
        """
        name = free_name(path or "/".join(filter(None, (self.path, op))), self.nodes)
        node_fields = {field.name for field in dataclasses.fields(kind)}
        node = kind(name=name, inputs=tuple(inputs), **{k: v for k, v in fields.items() if k in node_fields})
        for role, tensor in fields.items():
            if role not in node_fields:
                self.tensors[node.tensor(role)] = np.asarray(tensor)
        self.nodes[name] = node
        self.values[name] = node.result([self.values[given] for given in inputs], self.tensors)
        return name

    def on(self, x: Symbol, kind: type[Node], op: str, **fields: Any) -> Symbol:
        """The result of a node that reads x alone, batch axis in front."""
        name = self.append(kind, op, [self.name_of(x)], **fields)
        return self.symbol(name)

    def symbol(self, name: str) -> Symbol:
        """The result of a node, batch axis in front."""
        return Symbol(name, (BATCH, *self.values[name].shape))

    def name_of(self, x: Symbol) -> str:
        """The node that gives x. Raises UserError unless the batch axis is in front."""
        if x.batch:
            raise self.fail("an operation on images that are not along the first axis", "the batch axis in front")
        return x.name

    def fail(self, found: str, allowed: str) -> UserError:
        """The one line about what cannot be written down, with the path of the module."""
        return UserError(f"{self.path or 'network'}: found {found}, allowed {allowed}")


def free_name(name: str, taken: Collection[str]) -> str:
    """The name in the alphabet of a graph, or the first of name_2, name_3, ... that is not taken."""
    name = _legal(name)
    numbered = (f"{name}_{count}" for count in range(2, len(taken) + 3))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _legal(name: str) -> str:
    """The name in letters, digits, "._-" and single slashes, not too long."""
    parts = [re.sub(r"[^A-Za-z0-9_-]+", "_", part) for part in name.split("/")]
    return "/".join(filter(None, parts))[-(MAX_NAME - 8) :].lstrip("/") or "value"
