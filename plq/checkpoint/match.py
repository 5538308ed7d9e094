"""Trees of arrays compared by name, shape and dtype, before anything is restored into anything."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plq.errors import UserError
from plq.layers.variables import leaves_with_path

Leaves = dict[str, tuple[tuple[int, ...], str]]
SHOWN = 6


def leaf_shapes(tree: Any) -> Leaves:
    """Shape and dtype of every leaf by its path. Leaves are arrays or `jax.ShapeDtypeStruct`."""
    return {path: (tuple(leaf.shape), np.dtype(leaf.dtype).name) for path, leaf in leaves_with_path(tree)}


def require_same_leaves(found: Mapping[str, Any], wanted: Mapping[str, Any], source: str) -> None:
    """Raise a UserError that lists what differs, from both sides, unless the two are the same.

    Args:
        found: leaves in the file, as from `leaf_shapes`. wanted: those of the model. source: the file's name.
    """
    only_found = [path for path in found if path not in wanted]
    only_wanted = [path for path in wanted if path not in found]
    differing = [
        f"{path} {_text(found[path])} in the file, {_text(wanted[path])} in the model"
        for path in found
        if path in wanted and found[path] != wanted[path]
    ]
    complaints = [
        f"{label}: {_shortened(paths)}"
        for label, paths in (
            ("only in the file", only_found),
            ("only in the model", only_wanted),
            ("different", differing),
        )
        if paths
    ]
    if complaints:
        raise UserError(f"{source}: does not fit the model; {'; '.join(complaints)}")


def _text(leaf: tuple[tuple[int, ...], str]) -> str:
    return f"{leaf[1]}{list(leaf[0])}"


def _shortened(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
