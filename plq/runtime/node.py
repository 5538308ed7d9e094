"""What every node of a frozen network is: a name, inputs, tensors, and the value that it gives."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from plq.errors import UserError, nearest
from plq.runtime.grid import Grid

MAX_ELEMENTS = 2**27  # of one value for one image
MAX_SIZE = 2**16  # of any field that is a length

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Shape = tuple[int, ...]
Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Value:
    """What passes along an edge: float32 [batch, *shape], or integers of a ``grid`` times one ``scale``."""

    shape: Shape
    grid: Grid | None = None
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Node(abc.ABC):
    """One operation. ``name`` is also that of its result; ``inputs`` are names of earlier results, or "image".

    A tensor of the node is found in the graph under "<name>/<role>".
    """

    name: str
    inputs: tuple[str, ...]

    op: ClassVar[str]
    arity: ClassVar[int | None] = 1  # None: one or more

    def tensor(self, role: str) -> str:
        """The name of one of its tensors."""
        return f"{self.name}/{role}"

    def roles(self) -> dict[str, type]:
        """The tensors that it has: role and dtype (uint8: codes)."""
        return {}

    @abc.abstractmethod
    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        """What it gives for these inputs. Raises UserError, naming the node, for whatever does not fit."""

    def fail(self, found: str, allowed: str) -> UserError:
        """The one line about this node."""
        return UserError(f"node {self.name} ({self.op}): found {found}, allowed {allowed}")

    def require(self, field: str, values: Sequence[int], low: int, high: int = MAX_SIZE) -> None:
        """Raise UserError unless all values of a field are in [low, high]."""
        if any(not low <= value <= high for value in values):
            raise self.fail(f"{field} {list(values)}", f"{low} to {high}")

    def image(self, value: Value) -> Shape:
        """The shape of an input that must be [height, width, channels]."""
        if len(value.shape) != 3:
            raise self.fail(f"an input of shape {list(value.shape)}", "[height, width, channels]")
        return value.shape

    def require_axes(self, field: str, axes: Sequence[int], rank: int) -> None:
        """Raise UserError unless a field names different axes of a value of this rank."""
        if len(set(axes)) != len(axes) or any(not 0 <= axis < rank for axis in axes):
            raise self.fail(f"{field} {list(axes)}", f"different axes from 0 to {rank - 1}")

    def one_of(self, field: str, value: str, legal: Sequence[str]) -> None:
        """Raise UserError unless the field's value is a legal one."""
        if value not in legal:
            raise UserError(f"node {self.name} ({self.op}): {field} {value!r} is unknown; {nearest(value, legal)}")
