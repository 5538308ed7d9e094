"""`nnx.Conv` and `nnx.Linear` in low precision: a copy of somebody's `nnx.Module` whose layers have another class.

    expanded = plq.convert(model, rules, 1.0)       # an nnx.Module of the same class, with branches
    set_factor(expanded, f)                         # before each step, traced or not
    served = plq.prune(expanded)                    # without the branches, the same parameters
    frozen = plq.freeze(served, image_shape=(32, 32, 3), mean=..., std=...)

A layer computes what `plq.layers.dropin.LowPrecision` does:

    y = layer(Qa(x), Qw(kernel)) + bias + f * BN_anc(layer(x, A))

Every variable stays where the model has it; learned scales
are `nnx.Param` beside the kernel, and what leaves with the branch is of the types `Ancillary` and `AncillaryStat`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from plq.errors import UserError
from plq.layers.conv import default_kernel_init
from plq.layers.expanded import checked_factor
from plq.layers.opaque import step
from plq.layers.rule import Rule, refuse_unused
from plq.layers.unit import Unit
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, Scales, WeightQuantizer


class Ancillary(nnx.Param):
    """A parameter that leaves with the branch."""


class AncillaryStat(nnx.BatchStat):
    """A batch statistic that leaves with the branch."""


class Factor(nnx.Variable):
    """f, one for all layers of a model."""


@dataclasses.dataclass(frozen=True)
class Quantizers:
    """What a layer became: its path, Qw, and Qa, or None to take the input as it is."""

    path: str
    weights: WeightQuantizer
    activation: ActivationQuantizer | None


def _quantized_input(layer: Any, inputs: Any) -> Array:
    """Qa(x): x's own type if that is a float, else float32."""
    x, quantizer = jnp.asarray(inputs), layer.quantizers.activation
    if quantizer is None:
        return x
    scales = _scales(layer, "activation", quantizer.scale_names, lambda: quantizer.calibrate_scales(x))
    y = step("activation", f"{layer.quantizers.path}/act", quantizer, quantizer, x, scales)
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else y


def _promoted(layer: Any, values: Sequence[Any], **kwargs: Any) -> Any:
    """What the layer multiplies: the kernel among ``values`` quantized, all in the layer's type."""
    x, kernel, *rest = values
    weights = layer.quantizers.weights
    if weights.bits != FLOAT_BITS:
        scales = _scales(layer, "weight", weights.scale_names, lambda: weights.calibrate_scales(kernel))
        kernel = step("kernel", layer.quantizers.path, weights, weights.fake_quantize, kernel, scales)
    return layer.promote((x, kernel, *rest), **kwargs)


def _merged(layer: Any, low: Array, inputs: Any) -> Array:
    """low + f * BN_anc(layer(x, A)), or ``low`` without a branch."""
    branch = getattr(layer, "ancillary", None)
    return low if branch is None else low + branch(jnp.asarray(inputs)).astype(low.dtype)


def _scales(layer: Any, kind: str, names: tuple[str, ...], found: Callable[[], Scales]) -> Scales:
    """Learned scales by name; in a calibration they are set to what is found first."""
    held = {name: getattr(layer, f"{kind}_{name}") for name in names}
    if kind in layer.calibrating and names:
        for name, value in found().items():
            held[name][...] = value
    return {name: variable[...] for name, variable in held.items()}


class Conv(nnx.Conv):
    """`nnx.Conv` in low precision."""

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Array:
        return _merged(self, super().__call__(_quantized_input(self, inputs), *args, **kwargs), inputs)

    promote_dtype: Any = _promoted


class Linear(nnx.Linear):
    """`nnx.Linear` in low precision."""

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Array:
        return _merged(self, super().__call__(_quantized_input(self, inputs), *args, **kwargs), inputs)

    promote_dtype: Any = _promoted


COUNTERPARTS: dict[type, Any] = {nnx.Conv: Conv, nnx.Linear: Linear}
LowPrecision = (Conv, Linear)


class Branch(nnx.Module):
    """f * BN_anc(layer(x, A)): a layer in full precision with a kernel of its own, and its norm."""

    def __init__(self, layer: Any, factor: Factor, rngs: nnx.Rngs):
        self.layer = nnx.clone(layer)
        self.layer.use_bias, self.layer.bias = False, None
        kernel = default_kernel_init(rngs.params(), layer.kernel.shape, jnp.float32)
        self.layer.kernel = Ancillary(kernel)
        features = layer.kernel.shape[-1]
        self.norm = nnx.BatchNorm(features, momentum=Unit.momentum, epsilon=Unit.epsilon, rngs=rngs)
        for name, kind in (("scale", Ancillary), ("bias", Ancillary), ("mean", AncillaryStat), ("var", AncillaryStat)):
            setattr(self.norm, name, kind(getattr(self.norm, name)[...]))
        self.factor = factor

    def __call__(self, x: Array) -> Array:
        return self.factor[...] * self.norm(self.layer(x))


def convert_module(model: nnx.Module, rules: tuple[Rule, ...], factor: Any) -> nnx.Module:
    """The copy; see the module. Raises UserError for a converted model and for rules that match no layer."""
    if any(isinstance(node, LowPrecision) for _, node in nnx.iter_graph(model)):
        raise UserError("network: found one that is converted already, allowed the one that was given to convert")
    made, used = nnx.clone(model), set[Rule]()
    shared = None if factor is None else Factor(jnp.asarray(checked_factor(factor), jnp.float32))
    rngs = nnx.Rngs(0)
    for path, node in list(nnx.iter_graph(made)):
        names = [str(part) for part in path]
        rule = next((rule for rule in rules if type(node) in COUNTERPARTS and rule.matches(names)), None)
        if rule is not None:
            used.add(rule)
            _convert_layer(node, "/".join(names), rule, shared, rngs)
    refuse_unused([rule for rule in rules if rule not in used])
    return made


def _convert_layer(layer: Any, path: str, rule: Rule, factor: Factor | None, rngs: nnx.Rngs) -> None:
    branch = Branch(layer, factor, rngs) if factor is not None and rule.expand else None
    fields = rule.fields()
    quantizers = Quantizers(path, fields["weights"], fields["activation"])
    layer.promote = layer.promote_dtype
    del layer.promote_dtype
    layer.__class__ = COUNTERPARTS[type(layer)]
    layer.quantizers, layer.calibrating = quantizers, ()
    kernel = layer.kernel[...]
    scales = {"weight": quantizers.weights.initial_scales(kernel)}
    scales["activation"] = quantizers.activation.initial_scales() if quantizers.activation else {}
    for kind, found in scales.items():
        for name, value in found.items():
            setattr(layer, f"{kind}_{name}", nnx.Param(value))
    if branch is not None:
        layer.ancillary = branch


def set_factor(model: nnx.Module, factor: Array | float) -> None:
    """Set f, a scalar in [0, 1], traced or not. Raises UserError for another, and for a model without branches."""
    held = {id(node): node for _, node in nnx.iter_graph(model) if isinstance(node, Factor)}
    if not held:
        raise UserError("model: found no branch, allowed a model that was converted with a factor")
    for variable in held.values():
        variable[...] = jnp.asarray(checked_factor(factor), jnp.float32)


def calibrate_module(model: Any, *args: Any, kernels: bool = False, **kwargs: Any) -> nnx.Module:
    """A copy with the learned scales set from data; see `plq.layers.scales.calibrate`."""
    made, found = nnx.clone(model), nnx.clone(model)
    layers: list[Any] = [node for _, node in nnx.iter_graph(found) if isinstance(node, LowPrecision)]
    for layer in layers:
        layer.calibrating = ("activation", "weight") if kernels else ("activation",)
    found(*args, **kwargs)
    by_path = {layer.quantizers.path: layer for layer in layers}
    kept: list[Any] = [node for _, node in nnx.iter_graph(made) if isinstance(node, LowPrecision)]
    for layer in kept:
        other = by_path[layer.quantizers.path]
        for kind in ("activation", "weight"):
            for name in _scale_names(layer, kind):
                getattr(layer, name)[...] = getattr(other, name)[...]
    return made


def _scale_names(layer: Any, kind: str) -> list[str]:
    quantizer = layer.quantizers.activation if kind == "activation" else layer.quantizers.weights
    return [f"{kind}_{name}" for name in ([] if quantizer is None else quantizer.scale_names)]


def prune_module(model: nnx.Module) -> nnx.Module:
    """A copy without the branches."""
    made = nnx.clone(model)
    for _, node in list(nnx.iter_graph(made)):
        if isinstance(node, LowPrecision) and hasattr(node, "ancillary"):
            del node.ancillary
    return made


class Bridged(nn.Module):
    """A model in evaluation as a Linen network: its parameters and batch statistics are collections, by path.

    ``graph`` and ``rest``: what `nnx.split` gives beside them. ``initial``: the collections. ``paths``: of their leaves
    in the model, by that in a collection.
    """

    graph: Any
    rest: Any
    initial: Any
    paths: Any

    @nn.compact
    def __call__(self, images: Any) -> Any:
        state = dict(nnx.to_flat_state(self.rest))
        for collection, tree in self.initial.items():
            for name, value in tree.items():
                held = self.variable(collection, name, lambda value=value: value).value
                leaves = flatten_dict(held).items() if isinstance(held, Mapping) else [((), held)]
                state |= {self.paths[(name, *path)]: leaf for path, leaf in leaves}
        return nnx.merge(self.graph, nnx.from_flat_state(state))(images)


def as_linen(model: nnx.Module) -> tuple[nn.Module, dict[str, Any]]:
    """A model without branches as a Linen network in evaluation, and its variables. Raises UserError for branches."""
    if any(isinstance(node, Branch) for _, node in nnx.iter_graph(model)):
        raise UserError("model: is not stripped, it has branches; take them away: plq.prune(model)")
    made = nnx.clone(model)
    made.eval()
    parts: Any = nnx.split(made, nnx.Param, nnx.BatchStat, ...)
    graph, params, stats, rest = parts
    variables: dict[str, Any] = {}
    paths: dict[tuple[str, ...], Any] = {}
    for collection, state in (("params", params), ("batch_stats", stats)):
        leaves = {path: variable[...] for path, variable in nnx.to_flat_state(state)}
        paths |= {tuple(map(str, path)): path for path in leaves}
        variables[collection] = unflatten_dict({tuple(map(str, path)): leaf for path, leaf in leaves.items()})
    variables = {name: tree for name, tree in variables.items() if tree}
    return Bridged(graph, rest, variables, paths), variables
