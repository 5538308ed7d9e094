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
    return [path for path in paths if is_ancillary(path)]


def is_ancillary(path: str) -> bool:
    """Whether a leaf of this path leaves with the branch."""
    return bool(set(path.split("/")) & set(ANCILLARY))


def flatten(tree: dict, prefix: str = "") -> dict:
    """Leaves of a nested dict by path. Empty dicts vanish."""
    flat: dict = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat.update(flatten(value, path + "/") if isinstance(value, dict) else {path: value})
    return flat


def nest(flat: dict) -> dict:
    """The inverse of `flatten`. Raises ValueError if one path is a folder and a leaf."""
    tree: dict = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path}: {folder} is a leaf and a folder")
        node[name] = leaf
    return tree
