"""Start from another model's weights: what fits is taken, and what was taken and what was not is said."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plq.checkpoint.match import Leaves, leaf_shapes
from plq.checkpoint.model_file import read_model
from plq.errors import UserError
from plq.layers.variables import ANCILLARY, ancillary_leaves, flatten, leaf_path
from plq.models.trainable import Trainable
from plq.storage.staging import staged_input


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Leaves to start from, by path, and the paths of the others.

    taken: values from the file. learned: quantizer scales, which belong to a number of bits and are never taken:
    they are set from the kernels and from images. fresh: kept variables left as they are initialized. unused: in the
    file only, or there with another shape.
    """

    source: str
    taken: dict[str, Any]
    learned: list[str]
    fresh: list[str]
    unused: list[str]

    def into(self, tree: Any) -> Any:
        """The tree of collections with the taken leaves in place of its own, and with a silent branch."""
        warm_start = lambda path, leaf: self.taken.get(leaf_path(path), leaf)
        return zero_init_branch(jax.tree_util.tree_map_with_path(warm_start, tree))

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} leaves taken"]
        for name in ("learned", "fresh", "unused"):
            paths = getattr(self, name)
            parts += [f"{len(paths)} {name} ({', '.join(paths)})"] if paths else []
        return f"starting from {self.source}: {'; '.join(parts)}"


def zero_init_branch(tree: Any) -> Any:
    """The tree with a branch that gives 0: the gain of its batch norm, without one its kernel.

    Beside kernels that are trained already, what a fresh branch adds is noise.
    """
    branch = [path for path in ancillary_leaves(tree) if path.startswith("ancillary/")]
    gains = {path for path in branch if path.endswith("ancillary_norm/scale")}
    last = gains or {path for path in branch if path.endswith("ancillary_conv/kernel")}
    quiet = lambda path, leaf: jnp.zeros_like(leaf) if leaf_path(path) in last else leaf
    return jax.tree_util.tree_map_with_path(quiet, tree)


def read_start(
    given: str, architecture: Trainable, normalization: Mapping[str, Sequence[float]]
) -> tuple[str, dict[str, Any]]:
    """What the model in a model folder or a training folder is, in words, and its variables.

    Args:
        normalization: "mean" and "std" of this network's images; where the model's were others the words say so.
    Raises UserError if there is none, it still has its branch, or it is another network than ``architecture``.
    """
    try:
        with staged_input(given) as path:
            variables, description = read_model(path / "model" if (path / "model").is_dir() else path)
    except UserError as error:
        raise UserError(f"model.init_from: {error}") from error
    if ancillary_leaves(variables):
        raise UserError(f"model.init_from={given}: found a model with its ancillary branch, allowed a stripped one")
    try:
        words = [architecture.starts_from(description.get("architecture", {}))]
    except UserError as error:
        raise UserError(f"model.init_from={given}: {error}") from error
    for name, ours in normalization.items():
        theirs = description.get(name)
        words += [] if theirs == list(ours) else [f"trained with data.{name}={theirs}, here {list(ours)}"]
    return f"{given} ({', '.join(words)})", variables


def warm_start_from(source: str, found: dict[str, Any], wanted: Leaves, learned: Iterable[str]) -> WarmStart:
    """Which leaves of ``found`` have the path, shape and dtype of one of this network's kept variables.

    Args:
        wanted: leaves of this network, as from `leaf_shapes`. learned: paths of its quantizer scales ("params/...").
    Raises UserError if no kernel fits, or what fits is not finite.
    """
    scales, theirs = set(learned), leaf_shapes(found)
    ours = [path for path in wanted if path.split("/")[0] not in ANCILLARY]
    taken = {path: leaf for path, leaf in flatten(found).items() if path not in scales and path in ours}
    taken = {path: leaf for path, leaf in taken.items() if theirs[path] == wanted[path]}
    if not any(path.endswith("/kernel") for path in taken):
        raise UserError(f"model.init_from={source}: no kernel in it has the name and shape of one of this network")
    for path, leaf in taken.items():
        if not np.isfinite(leaf).all():
            raise UserError(f"model.init_from={source}: {path} holds nan or infinity, allowed finite numbers")
    return WarmStart(
        source=source,
        taken=taken,
        learned=sorted(scales),
        fresh=[path for path in ours if path not in taken and path not in scales],
        unused=[path for path in theirs if path not in taken],
    )
