"""The collections in which a network's variables live, and the one distinction that matters: who leaves."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from plq.layers.nnx_kind import is_nnx

KEPT = ("params", "batch_stats")
ANCILLARY = ("ancillary", "ancillary_stats")


def leaf_path(path: Iterable[Any]) -> str:
    """A pytree path as "params/conv1/conv/kernel": keys, fields and indices alike."""
    return "/".join(str(step_name(step)) for step in path)


def step_name(step: Any) -> Any:
    """The key, field name or index that a step of a pytree path stands for."""
    return next((getattr(step, kind) for kind in ("key", "name", "idx") if hasattr(step, kind)), step)


def is_mapping(tree: Any) -> bool:
    """Whether a tree's entries are looked up by name: a dict, a FrozenDict, an `nnx.State`, any Mapping."""
    return isinstance(tree, Mapping)


def children(tree: Any) -> list[tuple[Any, Any]] | None:
    """Names and values of what a tree holds directly; None for a leaf.

    Whatever JAX knows as a tree, and a Mapping or dataclass of any kind.
    """
    if is_mapping(tree):
        return list(tree.items())
    if _is_node(tree):
        inside, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)
        return [(step_name(path[0]), part) for path, part in inside]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return None


def _is_node(tree: Any) -> bool:
    return not jax.tree_util.all_leaves([tree])


def leaves_with_path(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree, each with its path, as `leaf_path` writes it; see `children` for what counts as a tree."""
    inside = children(tree)
    if inside is None:
        return [("", tree)]
    found = [(str(name), *leaf) for name, part in inside for leaf in leaves_with_path(part)]
    return [(f"{name}/{path}" if path else name, leaf) for name, path, leaf in found]


def prune(tree: Any) -> Any:
    """The same tree without any ``ancillary`` or ``ancillary_stats`` entry, at any depth but below a kept collection.

    Works on variables, optimizer states, whole training states and checkpoints read as plain dicts; see `children` for
    what counts as a tree. A field of that name, which its class needs, becomes an empty Mapping, or None where it was
    none. A module that is named "ancillary" stays: it is inside ``params``. Every leaf that stays is the same object.
    Of an `nnx.Module` (`plq.layers.nnx_layers`) a copy without branches is given.
    """
    if is_nnx(tree):
        from plq.layers.nnx_layers import prune_module

        return prune_module(tree)
    inside = children(tree)
    if inside is None:
        return tree
    remaining = lambda name, part: part if _is_kept(name, part) else prune(part)
    if is_mapping(tree):
        return _like(tree, {name: remaining(name, part) for name, part in inside if not _leaves(name)})
    return _with_parts(tree, [_emptied(part) if name in ANCILLARY else remaining(name, part) for name, part in inside])


def _leaves(name: Any) -> bool:
    """Whether an entry of this name leaves; it may be a path of `flatten`."""
    *_, collection = [part for part in str(name).split("/") if part in (*KEPT, *ANCILLARY)][:1] or [""]
    return collection in ANCILLARY


def _is_kept(name: Any, part: Any) -> bool:
    """Whether an entry is a collection that stays as it is; not a field "params" that holds all collections."""
    return name in KEPT and not (is_mapping(part) and set(part) & {*KEPT})


def _emptied(part: Any) -> Any:
    return _like(part, {}) if is_mapping(part) else None


def _like(tree: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """A Mapping of the same kind with other entries."""
    if not isinstance(tree, dict):
        kind: Any = type(tree)
        return kind(entries)
    found = copy.copy(tree)
    found.clear()
    found.update(entries)
    return found


def _with_parts(tree: Any, parts: list[Any]) -> Any:
    if _is_node(tree):
        return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=lambda part: part is not tree), parts)
    names = [field.name for field in dataclasses.fields(tree)]
    return dataclasses.replace(tree, **dict(zip(names, parts, strict=True)))


def ancillary_leaves(tree: Any) -> list[str]:
    """Paths of all leaves that `prune` takes away."""
    kept = {path for path, _ in leaves_with_path(prune(tree))}
    return [path for path, _ in leaves_with_path(tree) if path not in kept]


def kept(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The collections of the network that is served: all but the ancillary ones, `KEPT` among them in any case."""
    names = dict.fromkeys((*KEPT, *variables))
    return {name: variables.get(name, {}) for name in names if name not in ANCILLARY}


def merged(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The nested Mapping as nested dicts, with the leaves of another one in place of its own or beside them."""
    inner = lambda name: merged(tree.get(name, {}), value) if is_mapping(value := other[name]) else value
    return {**as_dicts(tree), **{name: inner(name) for name in other}}


def as_dicts(tree: Any) -> Any:
    """A nested Mapping of any kind as nested dicts."""
    return {name: as_dicts(value) for name, value in tree.items()} if is_mapping(tree) else tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested Mapping by path. Empty Mappings vanish."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat.update(flatten(value, path + "/") if is_mapping(value) else {path: value})
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
