"""What people write around `nn.Conv` and `nn.Dense`: the converted network starts as the network itself does."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plq.checkpoint.prune import prune
from plq.errors import UserError
from plq.layers.convert import Converted, Rule, conversion_table, convert, converting
from plq.layers.variables import ancillary_leaves

FLOAT, LOW = [Rule("*", 32, 32, expand=False)], [Rule("*", 2, 2)]
NORMS = ["batch_stats", "ancillary_stats"]
random_bias = nn.initializers.normal()
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
KEY = jax.random.key(0)


def dense(features=5, **fields):
    return nn.Dense(features, bias_init=random_bias, **fields)


def dropout():
    return nn.Dropout(0.5, deterministic=False)


class Setup(nn.Module):
    def setup(self):
        self.first = dense(7)
        self.layers = [dense(5), dropout(), dense(4)]

    def __call__(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return x


class Fields(nn.Module):
    network: nn.Module  # the name that `Converted` has for its own field
    heads: dict[str, Any]

    @nn.compact
    def __call__(self, x):
        x = dropout()(self.network(x))
        return dense(3, name="out")(self.heads["a"](x) + self.heads["b"](x))


class Shared(nn.Module):
    """One layer called twice, by two names and inside another one."""

    layer: nn.Module
    block: nn.Module

    @nn.compact
    def __call__(self, x):
        return dense(3)(self.block(nn.relu(self.layer(self.layer(x)))))


class DrawsItself(nn.Module):
    network: nn.Module

    @nn.compact
    def __call__(self, x):
        start = self.param("start", nn.initializers.normal(), (5,))
        noise = jax.random.normal(self.make_rng("dropout"), x.shape)
        return self.network(x + start + noise) + nn.Dense(5, name="network_0")(x)


class InCompact(nn.Module):
    rules: Any = None

    @nn.compact
    def __call__(self, x):
        part = lambda network: network if self.rules is None else convert(network, self.rules)
        return part(dense(3))(dropout()(part(nn.Sequential([dense(5), dense(5)]))(x)))


class InSetup(nn.Module):
    rules: Any = None

    def setup(self):
        part = lambda network: network if self.rules is None else convert(network, self.rules)
        self.encoder = part(dense(5))
        self.tied = dense(5)
        self.again = part(self.tied)

    def __call__(self, x):
        return self.again(self.tied(self.encoder(x)))


def shared(part: Callable = lambda network: network):
    layer = dense(5)
    return Shared(layer, part(nn.Sequential([layer, dropout(), dense(5), layer])))


def shared_across(part: Callable = lambda network: network):
    layer = dense(5)
    return Shared(part(layer), layer)


def nested(part: Callable = lambda network: network):
    return nn.Sequential([part(nn.Sequential([dense(5), dropout()])), dense(5), part(Setup())])


NETWORKS = {
    "sequential": lambda: nn.Sequential([dense(), dropout(), nn.Sequential([dense(), dropout()])]),
    "setup": Setup,
    "fields": lambda: Fields(nn.Sequential([dense(), dropout()]), {"a": dense(), "b": dense(name="named")}),
    "shared": shared,
    "draws": lambda: DrawsItself(nn.Sequential([dense(), dropout()])),
    "layer": dense,
    "remat": lambda: nn.remat(Setup)(),
    "attention": lambda: nn.Sequential([nn.MultiHeadDotProductAttention(1, dropout_rate=0.5, deterministic=False),
                                        dense()]),
}  # fmt: skip
PARTS = {
    "nested": (nested(), nested(lambda network: convert(network, FLOAT))),
    "in compact": (InCompact(), InCompact(FLOAT)),
    "in setup": (InSetup(), InSetup(FLOAT)),
    "shared": (shared(), shared(lambda network: convert(network, FLOAT))),
    "shared across": (shared_across(), shared_across(lambda network: convert(network, FLOAT))),
}


def require_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def require_the_same_network(own, converted):
    variables = own.init({"params": KEY, "dropout": KEY}, X)
    require_equal(converted.init({"params": KEY, "dropout": KEY}, X), variables)
    run = lambda network: network.apply(variables, X, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(run(converted), run(own))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_network_starts_as_the_network_itself_with_the_same_dropout(name):
    network = NETWORKS[name]()
    require_the_same_network(network, convert(network, FLOAT))
    quantized = convert(network, LOW, 0.5).init({"params": KEY, "dropout": KEY}, X)
    require_equal(quantized["params"], network.init({"params": KEY, "dropout": KEY}, X)["params"])


@pytest.mark.parametrize("name", PARTS)
def test_converted_parts_of_a_network_start_as_the_parts_themselves(name):
    require_the_same_network(*PARTS[name])


def test_paths_of_rules_are_those_of_the_network_for_fields_too():
    network = NETWORKS["fields"]()
    rules = [Rule("network/layers_0", 4, 4), Rule("heads_a", 2, 2), Rule("*", 32, 32, expand=False)]
    table = {row.path: row.rule for row in conversion_table(network, rules, (5,))}
    assert table == {"network/layers_0": rules[0], "heads_a": rules[1], "heads_b": rules[2], "out": rules[2]}
    leaves = ancillary_leaves(convert(network, rules, 1.0).init({"params": KEY, "dropout": KEY}, X))
    assert {path.split("/ancillary_")[0].split("/", 1)[1] for path in leaves} == {"network/layers_0", "heads_a"}


def test_a_shared_layer_has_one_branch_and_every_removal_is_exact():
    class Own(nn.Module):
        def setup(self):
            self.layer, self.out = nn.Dense(5), nn.Dense(3)

        def __call__(self, x):
            return self.out(nn.relu(self.layer(nn.relu(self.layer(x)))))

    rules = [Rule("*", 2, 2, weights="lsq", activations="lsq")]
    variables = convert(Own(), rules, 0.0).init(KEY, X)
    assert set(variables["ancillary"]) == {"layer", "out"}
    expected = convert(Own(), rules, 0.0).apply(variables, X)
    np.testing.assert_array_equal(convert(Own(), rules).apply(prune(variables), X), expected)
    assert np.abs(convert(Own(), rules, 1.0).apply(variables, X) - expected).max() > 1e-3


class Normed(nn.Module):
    """Batch norms over two axes, one behind each layer, and one that is not synchronized."""

    @nn.compact
    def __call__(self, x, train=True, sync=True):
        norm = lambda axis: nn.BatchNorm(not train, axis_name=axis if sync else None)
        x = norm("d")(nn.Dense(4, name="first")(x))
        x = norm(None)(nn.Dense(4, name="alone")(x))
        return norm(("d", "e"))(nn.Sequential([nn.Dense(4, name="both")])(x))


def test_the_norm_of_a_branch_shares_its_statistics_as_the_next_norm_does():
    x = jax.random.normal(KEY, (2, 2, 8, 5)) * jnp.arange(1.0, 5).reshape(2, 2, 1, 1)
    network = convert(Normed(), LOW, 1.0)
    variables = network.init(KEY, x[0, 0], sync=False)
    update = lambda x: network.apply(variables, x, mutable=NORMS)[1]["ancillary_stats"]
    stats = jax.vmap(jax.vmap(update, axis_name="e"), axis_name="d")(x)
    var = {name: stats[name]["ancillary_norm"]["var"] for name in ("first", "alone", "both")}
    same = lambda axis: {name: bool(jnp.allclose(*jnp.moveaxis(leaf, axis, 0))) for name, leaf in var.items()}
    assert same(0) == {"first": True, "alone": False, "both": True}
    assert same(1) == {"first": False, "alone": False, "both": True}


@pytest.mark.parametrize("how", ["pmap", "shard_map"])
def test_replicas_on_devices_agree(how):
    x = jax.random.normal(KEY, (2, 8, 5)) * jnp.arange(1.0, 3).reshape(2, 1, 1)

    class D(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(False, axis_name="d")(nn.Dense(4)(x))

    network = convert(D(), LOW, 1.0)
    variables = jax.jit(network.init)(KEY, x[0])
    update = lambda x: network.apply(variables, x, mutable=NORMS)[1]
    if how == "pmap":
        stats = jax.pmap(update, axis_name="d")(x)
    else:
        mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = jax.sharding.PartitionSpec("d")
        one = lambda x: jax.tree.map(lambda leaf: leaf[None], update(x[0]))
        stats = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))(x)
    whole = jax.vmap(update, axis_name="d")(x)
    for leaf, expected in zip(jax.tree.leaves(stats), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(leaf[0], leaf[1], rtol=1e-6)
        np.testing.assert_allclose(leaf, expected, rtol=1e-5)


def test_the_norm_is_shared_for_other_methods_too():
    class Encoder(nn.Module):
        def setup(self):
            self.layer, self.norm = nn.Dense(4), nn.BatchNorm(False, axis_name="d")

        def encode(self, x):
            return self.norm(self.layer(x))

    x = jax.random.normal(KEY, (2, 8, 5)) * jnp.arange(1.0, 3).reshape(2, 1, 1)
    with converting(LOW, 1.0):
        variables = Encoder().init(KEY, x[0], method="encode")
        update = lambda x: Encoder().apply(variables, x, mutable=NORMS, method="encode")[1]
        stats = jax.vmap(update, axis_name="d")(x)
    for leaf in jax.tree.leaves(stats):
        np.testing.assert_allclose(leaf[0], leaf[1], rtol=1e-6)
    assert "ancillary_stats" in stats


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        return dense(5)(nn.relu(dense(6)(x)))


class Wrapped(nn.Module):
    """A layer, or a whole block, inside a wrapper that changes its variables."""

    wrapper: Any
    inner: Any
    arguments: Any

    @nn.compact
    def __call__(self, x):
        return dense(4)(self.wrapper(self.inner())(nn.relu(x), **dict(self.arguments)))


def standardized(inner):
    """A wrapper of one's own, around all collections."""
    return _Standardized(inner)


class _Standardized(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        change = lambda tree: jax.tree.map(lambda leaf: leaf / (1 + jnp.abs(leaf).max()), tree)
        mapped = nn.map_variables(lambda inner, x: inner(x), True, change, init=self.is_initializing())
        return mapped(self.inner, x)


WRAPPERS = {
    "weight": (nn.WeightNorm, {}),
    "weight, all": (partial(nn.WeightNorm, variable_filter=None), {}),
    "spectral": (nn.SpectralNorm, {"update_stats": False}),
    "own": (standardized, {}),
    "both": (lambda inner: nn.WeightNorm(standardized(inner)), {}),
}


@pytest.mark.parametrize("inner", [partial(dense, 5), Twice], ids=["layer", "block"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_does_not_see_the_branch_and_nothing_of_it_stays(name, inner):
    wrapper, arguments = WRAPPERS[name]
    network = Wrapped(wrapper, inner, tuple(arguments.items()))
    rules = [Rule("*", 2, 2, weights="lsq", activations="lsq", granularity="channel")]
    variables = convert(network, rules, 0.0).init(KEY, X)
    plain = convert(network, rules).init(KEY, X)
    require_equal(prune(variables), plain)
    own = {path for path, _ in jax.tree_util.tree_leaves_with_path(network.init(KEY, X))}
    more = {path for path, _ in jax.tree_util.tree_leaves_with_path(plain)} - own
    assert all(path[-1].key == "step" for path in more)
    expected = convert(network, rules, 0.0).apply(variables, X)
    np.testing.assert_array_equal(convert(network, rules).apply(plain, X), expected)
    kernels = [path for path in ancillary_leaves(variables) if path.endswith("kernel")]
    assert len(kernels) == (2 if inner is not Twice else 3)
    mutable = {"mutable": NORMS}

    def loss(ancillary, f):
        given = {**variables, "ancillary": ancillary}
        return (convert(network, rules, f).apply(given, X, **mutable)[0] ** 2).sum()

    gradient = jax.grad(loss)(variables["ancillary"], 0.5)
    assert all(leaf.any() for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if path[-1].key == "kernel")
    _, changed = convert(network, rules, 0.5).apply(variables, X, **mutable)
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(np.any(new != old), True),
                 changed["ancillary_stats"], variables["ancillary_stats"])  # fmt: skip


@pytest.mark.parametrize(("network", "found"), [
    (Wrapped(nn.WeightNorm, lambda: nn.remat(Twice)(), ()), "nn.remat or nn.jit within nn.map_variables"),
    (nn.WeightNorm(nn.jit(Twice)()), "nn.remat or nn.jit within nn.map_variables"),
])  # fmt: skip
def test_where_a_branch_cannot_be_hidden_it_is_refused_in_a_line(network, found):
    with pytest.raises(UserError, match=found) as caught:
        convert(network, LOW, 1.0).init(KEY, X)
    assert "\n" not in str(caught.value)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.relu(nn.Dense(5)(x)), None


class Scanned(nn.Module):
    axes: Any

    @nn.compact
    def __call__(self, x):
        lifted = nn.scan(Step, variable_axes=dict(self.axes), split_rngs={"params": True}, length=3)
        return lifted()(x, None)[0]


class Vmapped(nn.Module):
    axes: Any

    @nn.compact
    def __call__(self, x):
        lifted = nn.vmap(Step, variable_axes=dict(self.axes), split_rngs={"params": True}, axis_size=3, in_axes=None)
        return lifted()(x)[0].sum(0)


@pytest.mark.parametrize("kind", [Scanned, Vmapped])
def test_scan_and_vmap_work_or_say_what_to_name(kind):
    whole = kind((("params", 0), ("ancillary", 0), ("ancillary_stats", 0)))
    variables = convert(whole, LOW, 0.0).init(KEY, X)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(variables)} == {3}
    at_zero = convert(whole, LOW, 0.0).apply(variables, X)
    np.testing.assert_array_equal(convert(whole, LOW).apply(prune(variables), X), at_zero)
    run = jax.jit(lambda f: convert(whole, LOW, f).apply(variables, X, mutable=NORMS)[0])
    assert np.abs(run(1.0) - at_zero).max() > 1e-3
    for axes in ((("params", 0),), (("params", 0), ("ancillary", 0))):
        with pytest.raises(UserError, match=r"has a branch, .*variable_axes=\{'ancillary': 0") as caught:
            convert(kind(axes), LOW, 1.0).init(KEY, X)
        assert "\n" not in str(caught.value)


class JitFunction(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.jit(lambda layer, x: layer(x))(nn.Dense(5), x)


class JitMethod(nn.Module):
    @nn.jit
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(x)


class PlainFunction(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(x)


@pytest.mark.parametrize(
    ("network", "plain"),
    [
        (nn.jit(Twice)(), Twice()),
        (nn.Sequential([nn.jit(Twice)(), nn.Dense(3)]), nn.Sequential([Twice(), nn.Dense(3)])),
        (JitFunction(), PlainFunction()),
        (JitMethod(), PlainFunction()),
        (nn.remat(Twice)(), Twice()),
    ],
    ids=["class", "field", "function", "method", "remat"],
)
def test_within_jit_each_factor_counts(network, plain):
    variables = convert(network, LOW, 1.0).init(KEY, X)
    require_equal(convert(network, LOW, 1.0).init(KEY, X), variables)  # compiled by now, and every rule is still used
    at = lambda network, f: convert(network, LOW, f).apply(variables, X)
    for f in (0.5, 0.0, 1.0):
        expected = at(plain, f)
        np.testing.assert_allclose(at(network, f), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(jax.jit(partial(at, network))(f), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(at(plain, 1.0) - at(plain, 0.5)).max() > 1e-3
    served = convert(network, LOW).apply(prune(variables), X)
    np.testing.assert_allclose(served, at(plain, 0.0), rtol=1e-5, atol=1e-6)


def test_a_branch_that_is_not_in_the_variables_is_said_so():
    plain = nn.Dense(3).init(KEY, X)
    with pytest.raises(UserError, match="the layer: has a branch, found no collections 'ancillary'"):
        convert(nn.Dense(3), LOW, 1.0).apply(plain, X)


def test_what_convert_refuses():
    network = convert(nn.Dense(3), LOW)
    for given, found in ((network, "converted already"), (nn.Dense, "allowed a flax.linen.Module"), (None, "NoneType")):
        with pytest.raises(UserError, match=f"network.*{found}"):
            convert(given, LOW)


@pytest.mark.parametrize("factor", [1.5, -0.1, float("nan"), float("inf"), True, "1", jnp.float32(2), jnp.ones(1),
                                    np.float64("nan"), jnp.asarray(True), 1j, [0.5], np.int64(2)])  # fmt: skip
def test_a_factor_that_is_no_number_in_0_to_1_is_refused(factor):
    for make in (lambda: convert(nn.Dense(3), LOW, factor), lambda: converting(LOW, factor).__enter__()):
        with pytest.raises(UserError, match="^factor.*allowed a? ?(real|number|0 to 1)") as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [0, 1, 0.5, np.float32(0.5), np.int64(1), jnp.float32(0.5), jnp.bfloat16(0.5), None])
def test_a_factor_in_0_to_1_is_taken(factor):
    assert isinstance(convert(nn.Dense(3), LOW, factor), Converted)
    assert jax.jit(lambda x: convert(nn.Dense(3), LOW, factor).init(KEY, x))(X)


def test_rules_come_in_any_collection_of_rules():
    one = LOW[0]
    for rules in (LOW, tuple(LOW), iter(LOW), (rule for rule in LOW), one, {one: 1}.keys()):
        assert convert(nn.Dense(3), rules).rules == (one,)
    assert [row.rule for row in conversion_table(nn.Dense(3), one, (5,))] == [one]


@pytest.mark.parametrize("rules", ["*", ["*"], None, 3, [LOW], [LOW[0], {"pattern": "*"}], [None]])
def test_what_is_no_rule_is_refused_in_a_line(rules):
    with pytest.raises(UserError, match=r"^rules(\[\d\])?=.*allowed (a Rule|Rules in a list)") as caught:
        convert(nn.Dense(3), rules)
    assert "\n" not in str(caught.value)
