"""The collections in which a network's variables live, and the one distinction that matters: who leaves."""

import jax

KEPT = ("params", "batch_stats")
ANCILLARY = ("ancillary", "ancillary_stats")


def leaf_path(path: tuple) -> str:
    """A pytree path as "params/conv1/conv/kernel": dict keys, fields and indices alike."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def ancillary_leaves(tree) -> list[str]:
    """Paths of all leaves that belong to the ancillary branch, at any depth (moments included)."""
    paths = [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [path for path in paths if set(path.split("/")) & set(ANCILLARY)]
