"""A tree of variables is what can be looked up by name, whatever class holds it; what is said to leave has left."""

import collections
import dataclasses
import types
from typing import Any, NamedTuple

import flax.core
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from hypothesis import given, settings
from hypothesis import strategies as st

from plq.checkpoint.match import leaf_shapes
from plq.checkpoint.prune import prune, pruned_leaves
from plq.layers.convert import Rule, convert
from plq.layers.scales import calibrate
from plq.layers.variables import ancillary_leaves, as_dicts, flatten, leaves_with_path, nest

RULES = [Rule("*", 2, 2, weights="lsq", activations="lsq")]
X = jnp.asarray(np.random.default_rng(0).random((4, 5), np.float32))


class ReadOnly(collections.abc.Mapping):
    """A Mapping of one's own, unknown to JAX."""

    def __init__(self, entries):
        self._entries = dict(entries)

    def __getitem__(self, name):
        return self._entries[name]

    def __iter__(self):
        return iter(self._entries)

    def __len__(self):
        return len(self._entries)


class Pair(NamedTuple):
    first: Any
    ancillary: Any


@flax.struct.dataclass
class Struct:
    params: Any
    ancillary: Any
    label: str = flax.struct.field(pytree_node=False, default="unchanged")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    variables: Any
    count: Any


@dataclasses.dataclass(frozen=True)
class Unregistered:
    variables: Any


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, inside):
        self.inside = inside

    def tree_flatten(self):
        return (self.inside,), None

    @classmethod
    def tree_unflatten(cls, aux, parts):
        return cls(*parts)


def default(entries):
    return collections.defaultdict(dict, entries)


MAPPINGS = [dict, flax.core.freeze, collections.OrderedDict, types.MappingProxyType, ReadOnly, nnx.State, default,
            collections.UserDict, collections.ChainMap]  # fmt: skip


def everywhere(kind, tree):
    return kind({name: everywhere(kind, value) for name, value in tree.items()}) if isinstance(tree, dict) else tree


@pytest.fixture(scope="module")
def variables():
    return jax.jit(convert(nn.Sequential([nn.Dense(3)]), RULES, 0.5).init)(jax.random.key(0), X)


def require_without_branch(tree, kept):
    """What is left are the same leaves, and the report is the difference."""
    stripped, report = prune(tree), pruned_leaves(tree)
    before, after = dict(leaves_with_path(tree)), dict(leaves_with_path(stripped))
    assert {path: id(leaf) for path, leaf in after.items()} == {path: id(before[path]) for path in after}
    assert set(after) == kept and report.paths == sorted(set(before) - kept)
    assert report.bytes == sum(leaf.nbytes for path, leaf in before.items() if path not in kept)
    assert type(stripped) is type(tree) and not ancillary_leaves(stripped)
    return stripped


@pytest.mark.parametrize("kind", MAPPINGS)
def test_any_mapping_is_treated_as_a_dict(variables, kind):
    given = everywhere(kind, variables)
    kept = {path for path in flatten(variables) if path.startswith("params")}
    require_without_branch(given, kept)
    for tree in (kind(variables), {"variables": given}, [given], (given, 1.0 * X)):
        assert pruned_leaves(tree).parameters == pruned_leaves(variables).parameters == 15 + 2 * 3
        assert not ancillary_leaves(prune(tree))
    assert flatten(given) == flatten(variables)
    assert nest(flatten(given)) == as_dicts(given)
    assert leaf_shapes(given) == leaf_shapes(variables)


@pytest.mark.parametrize("kind", MAPPINGS)
def test_calibration_takes_any_mapping(variables, kind):
    network = convert(nn.Sequential([nn.Dense(3)]), RULES)
    expected = calibrate(network, prune(variables), X, kernels=True)
    found = calibrate(network, prune(everywhere(kind, variables)), X, kernels=True)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found["params"]["layers_0"]["act"]["step"] != variables["params"]["layers_0"]["act"]["step"]


def test_calibration_keeps_names_with_a_slash_and_other_collections():
    network = convert(nn.SpectralNorm(nn.Dense(3), collection_name="spectral"), RULES)
    variables = network.init(jax.random.key(0), X, update_stats=False)
    found = calibrate(network, variables, X, update_stats=False)
    assert jax.tree.structure(found) == jax.tree.structure(variables) and "spectral" in found
    assert network.apply(found, X, update_stats=False).shape == (4, 3)
    assert prune(found)["spectral"] == found["spectral"]


CONTAINERS = {
    "named tuple": lambda tree: Pair(tree, tree["ancillary"]),
    "struct": lambda tree: Struct(tree["params"], tree["ancillary"]),
    "struct of collections": lambda tree: Struct({name: tree[name] for name in ("params", "ancillary")}, None),
    "registered": lambda tree: Registered(tree, jnp.zeros(())),
    "unregistered": lambda tree: Unregistered(tree),
    "node": lambda tree: Node([tree, (tree,)]),
    "flat": flatten,
    "array in a field": lambda tree: Pair(tree, jnp.ones(3)),
    "state": lambda tree: TrainState.create(apply_fn=None, params=tree, tx=optax.adam(0.1)),
    "masked": lambda tree: optax.masked(optax.adam(0.1), dict.fromkeys(tree, True) | {"params": False}).init(tree),
    "multi": lambda tree: optax.multi_transform(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1, 0.9)}, dict.fromkeys(tree, "b") | {"params": "a"}
    ).init(tree),
    "accumulated": lambda tree: optax.MultiSteps(optax.adam(0.1), 2).init(tree),
    "plain": lambda tree: {"params": tree, "step": jnp.zeros(())},
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("kind", [dict, flax.core.freeze])
def test_states_of_any_class(variables, name, kind):
    tree = CONTAINERS[name](everywhere(kind, variables) if name not in ("multi", "masked") else variables)
    own = lambda path: not {"ancillary", "ancillary_stats"} & set(path.split("/"))
    kept = {path for path, _ in leaves_with_path(tree) if own(path)}
    stripped = require_without_branch(tree, kept)
    assert pruned_leaves(tree).paths
    if name == "struct":
        assert stripped.label == "unchanged" and not stripped.ancillary


def test_a_module_that_is_named_ancillary_stays():
    params = {"ancillary": {"kernel": X}, "dense": {"kernel": X}}
    tree = {"params": params, "batch_stats": {"ancillary_stats": {"mean": X}}}
    expanded = {**tree, "ancillary": {"dense": {"kernel": X}}, "cache": {"x": X}}
    assert prune(expanded) == {**tree, "cache": {"x": X}}
    assert pruned_leaves(expanded).paths == ["ancillary/dense/kernel"]
    state = TrainState.create(apply_fn=None, params=tree["params"], tx=optax.identity())
    assert not pruned_leaves(state).paths


names = st.sampled_from(["params", "ancillary", "ancillary_stats", "batch_stats", "dense", "mu", "cache"])
trees = st.recursive(
    st.integers(1, 3).map(lambda size: np.ones(size, np.float32)),
    lambda inner: (
        st.dictionaries(names, inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3).map(flax.core.freeze)
        | st.dictionaries(names, inner, max_size=3).map(types.MappingProxyType)
        | st.lists(inner, max_size=3)
        | st.tuples(inner, inner).map(lambda pair: Pair(*pair))
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=80, deadline=None)
def test_the_report_is_what_is_missing_afterwards(tree):
    stripped, report = prune(tree), pruned_leaves(tree)
    before, after = dict(leaves_with_path(tree)), dict(leaves_with_path(stripped))
    assert sorted(set(before) - set(after)) == report.paths
    assert all(after[path] is before[path] for path in after)
    assert pruned_leaves(stripped).paths == []
