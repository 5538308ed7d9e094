"""Removal: take the ancillary branch out of a state or a checkpoint, leaving the low-precision network.

As a program: ``plq prune --workdir DIR [--step N] --out PATH``.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from plq.checkpoint.model_file import require_place, write_model
from plq.checkpoint.store import open_store
from plq.errors import UserError
from plq.layers.variables import ANCILLARY, KEPT, ancillary_leaves, leaf_path


def prune(tree: Any) -> Any:
    """The same tree without any ``ancillary`` or ``ancillary_stats`` entry, at any depth.

    Works on nested dicts, lists, (named) tuples and dataclasses: variables, optimizer states, whole training
    states, checkpoints read as plain dicts. Every leaf that stays is the same object.
    """
    if isinstance(tree, dict):
        return {name: prune(value) for name, value in tree.items() if name not in ANCILLARY}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(prune, tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(prune, tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: prune(getattr(tree, field.name)) for field in dataclasses.fields(tree)}
        return dataclasses.replace(tree, **fields)
    return tree


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What a removal took away: paths, number of leaves, of parameters (trained values), and bytes."""

    paths: list[str]
    parameters: int
    bytes: int

    def __str__(self) -> str:
        return f"{len(self.paths)} leaves, {self.parameters:,} parameters, {self.bytes:,} bytes"


def pruned_leaves(tree: Any) -> PruneReport:
    """What `prune` takes out of this tree (arrays, or anything with shape and dtype)."""
    gone = set(ancillary_leaves(tree))
    leaves = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    dropped = {path: leaf for path, leaf in leaves.items() if path in gone}
    trained = [leaf.size for path, leaf in dropped.items() if "ancillary" in path.split("/")]
    return PruneReport(sorted(dropped), sum(trained), sum(leaf.size * leaf.dtype.itemsize for leaf in dropped.values()))


def prune_checkpoint(workdir: Path, step: int | None, out: Path, force: bool = False) -> tuple[PruneReport, int]:
    """Write the stripped model of a checkpoint to ``out``; what was dropped, and the step taken.

    Args:
        step: which checkpoint; None takes the latest. force: strip although f > 0.
    Raises UserError if there is no such checkpoint, f > 0 there and not ``force``, or ``out`` cannot be
    written to.
    """
    require_place(out)
    store = open_store(workdir)
    step = store.choose(step)
    record = store.record(step)
    if record["factor"] > 0 and not force:
        found = f"the factor f is {record['factor']:.6g} at step {step}"
        raise UserError(f"--step {step}: {found}, removal is exact at f = 0 only; --force strips it all the same")
    variables = {}
    for group in ("weights", "statistics"):
        variables.update(store.restore_plain(step, keys=(group,))[group])
    description = {**record["model"], "training": {**record["model"]["training"], "step": step}}
    kept = prune(variables)
    write_model(out, {name: kept.get(name, {}) for name in KEPT}, description)
    return pruned_leaves(variables), step
