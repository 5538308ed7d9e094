"""Removal: take the ancillary branch out of a state or a checkpoint, leaving the low-precision network.

As a program: ``plq prune --workdir DIR [--step N] --out PATH``.
"""

import dataclasses
from pathlib import Path
from typing import Any

from plq.checkpoint.model_file import require_place, write_model
from plq.checkpoint.store import open_store
from plq.errors import UserError
from plq.layers.variables import ancillary_leaves, kept, leaves_with_path, prune

__all__ = ["PruneReport", "prune", "prune_checkpoint", "pruned_leaves"]


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
    gone, leaves = ancillary_leaves(tree), dict(leaves_with_path(tree))
    dropped = {path: leaves[path] for path in gone}
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
    write_model(out, kept(prune(variables)), description)
    return pruned_leaves(variables), step
