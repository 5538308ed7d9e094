"""Several outputs of one network: the graph gives them flat, one behind the other; these say what is where."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from plq.errors import UserError
from plq.runtime.node import MAX_ELEMENTS, Shape


@dataclasses.dataclass(frozen=True)
class Head:
    """One output: its key in the network's dict, or its place in the tuple, and its shape for one image."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        """How many numbers it has for one image."""
        return math.prod(self.shape)


def check_heads(heads: Sequence[Head], total: Shape) -> None:
    """Raise UserError unless these outputs are what a graph gives that ends in a vector of shape ``total``."""
    for head in heads:
        if any(not 1 <= length <= MAX_ELEMENTS for length in head.shape) or not head.shape:
            raise UserError(f"head {head.name[:40]!r}: shape {list(head.shape)}, allowed lengths of 1 or more")
        if not head.name.isprintable() or not 1 <= len(head.name) <= 100:
            raise UserError(f"head {head.name[:40]!r}: allowed a printable name of 1 to 100 characters")
    if len({head.name for head in heads}) != len(heads):
        raise UserError("heads: two of them have one name")
    if total != (sum(head.size for head in heads),):
        raise UserError(f"heads: found {sum(head.size for head in heads):,} numbers, allowed {list(total)}")


def offsets(heads: Sequence[Head]) -> list[int]:
    """Where each of them begins in the flat output."""
    return [sum(head.size for head in heads[:place]) for place in range(len(heads))]


def split(heads: Sequence[Head], logits: Any) -> Any:
    """The outputs, in a tuple or in a dict as the network gives them; without heads the array itself.

    Args:
        logits: [batch, values].
    """
    if not heads:
        return logits
    starts = offsets(heads)
    parts = [
        logits[:, start : start + head.size].reshape(len(logits), *head.shape)
        for start, head in zip(starts, heads, strict=True)
    ]
    if [head.name for head in heads] == [str(place) for place in range(len(heads))]:
        return tuple(parts)
    return {head.name: part for head, part in zip(heads, parts, strict=True)}
