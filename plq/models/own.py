"""Somebody's own Linen network as one that the trainer can train: converted by rules, its code left as it is."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.checks import shown
from plq.errors import UserError, one_line
from plq.layers.config_rules import rules_from_json, rules_to_json, stated_rules, usual_rules
from plq.layers.convert import Converted, conversion_table
from plq.layers.expanded import LayerFactor
from plq.layers.factory import QuantConfig
from plq.layers.rule import Rule, refuse_unused
from plq.layers.variables import kept, leaves_with_path
from plq.models.importing import class_of, network_class
from plq.models.options import (
    CLASSES,
    Options,
    check_options,
    made,
    plain_fields,
    plain_options,
    require_known,
    with_classes,
)
from plq.models.signature import Flags, training_flags

STREAMS = ("dropout", "params")  # of random numbers in training; the second is that of all other names


class Trained(Converted):
    """A converted network that is called as those of plq are: ``network(images, train=False)``, float32 logits.

    ``flags``: the arguments by which the network is told, see `plq.models.signature`.
    """

    flags: Flags = ()

    def __call__(self, images: Any, train: bool = False) -> Any:
        logits = super().__call__(images, **{name: value == train for name, value in self.flags})
        return logits.astype(jnp.float32) if isinstance(logits, Array) else logits


def in_evaluation(network: nn.Module) -> nn.Module:
    """The network, called as ``network(images)`` in evaluation whatever the defaults of its arguments are.

    Raises UserError if it wants other arguments than images.
    """
    inner = network.network if isinstance(network, Converted) else network
    flags = training_flags(type(inner))
    defaults = inspect.signature(type(inner).__call__).parameters
    if isinstance(network, Trained) or all(defaults[name].default is (not value) for name, value in flags):
        return network
    rules, factor = (network.rules, network.factor) if isinstance(network, Converted) else ((), None)
    return Trained(inner, rules, factor, flags)


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """A network by its class, its fields, and what its layers become: a `plq.models.trainable.Trainable`.

    ``name``: where the class is, as it was given; ``options``: all of its fields that are plain values.
    """

    name: str
    code: Callable[..., nn.Module]
    options: Options = dataclasses.field(hash=False)
    rules: tuple[Rule, ...]

    @property
    def class_name(self) -> str:
        return class_of(self.code).__name__

    def plain(self) -> nn.Module:
        """The low-precision network alone."""
        return self._converted(None)

    def expanded(self, merge: str, factor: LayerFactor, norm: bool = True) -> nn.Module:
        """The same with the branches: see `plq.layers.dropin.LowPrecision`. Raises UserError for another merge."""
        if merge != "add" or not norm:
            raise UserError(f"{self.name}: found expansion.merge={merge}, norm={norm}, allowed add and True")
        return self._converted(factor)

    def _converted(self, factor: LayerFactor | None) -> nn.Module:
        return Trained(made(self.code, self.options), self.rules, factor, training_flags(self.code))

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `from_json`."""
        rules = rules_to_json(self.rules)
        return {"network": self.name, "class": self.class_name, "options": self.options, "rules": rules}

    def starts_from(self, fields: Mapping[str, Any]) -> str:
        """What the model of this description is, in words. Raises UserError if it is another network.

        Rules, the number of classes and the rates of dropout may be other ones.
        """
        _require_whole(fields)
        if fields["class"] != self.class_name:
            raise UserError(f"found the network {fields['class']}, this one is {self.class_name}")
        theirs, ours = (plain_options("options", options) for options in (fields["options"], self.options))
        for name in {**theirs, **ours}:
            if name not in CLASSES and "dropout" not in name and theirs.get(name) != ours.get(name):
                raise UserError(f"has {name}={theirs.get(name)}, this network {name}={ours.get(name)}")
        return str(fields["network"])

    def check(self, image_shape: tuple[int, ...], num_classes: int) -> None:
        """Run the network abstractly, in training and in evaluation.

        Raises UserError for whatever its code raises, for rules without a layer, for an output that is not
        [batch, classes], and for variables that a training cannot keep.
        """
        file = inspect.getsourcefile(class_of(self.code)) or ""
        x, expanded = jax.ShapeDtypeStruct((2, *image_shape), np.float32), self.expanded("add", 1.0)
        with one_line(f"{self.name} on images {list(image_shape)}", file):
            initial = nn.meta.unbox(jax.eval_shape(expanded.init, jax.random.key(0), x))
        _require_trainable(self.name, initial)
        mutable = [name for name in initial if name not in ("params", "ancillary")]

        def train(variables: Any, x: Any) -> Any:
            rngs = {name: jax.random.key(0) for name in STREAMS}
            return expanded.apply(variables, x, train=True, mutable=mutable, rngs=rngs)

        with one_line(f"{self.name} in training", file):
            output, changed = jax.eval_shape(train, initial, x)
        _require_logits(self.name, output, num_classes)
        _require_same_shapes(self.name, initial, changed)
        with one_line(f"{self.name} in evaluation", file):
            output = jax.eval_shape(self.plain().apply, kept(initial), x)
        _require_logits(self.name, output, num_classes)


def own_network(
    name: str, given: Mapping[str, Any], quant: QuantConfig, num_classes: int, image_shape: tuple[int, ...]
) -> OwnNetwork:
    """The network that a person names, with fields and rules as a configuration has them; its code is imported.

    Raises UserError, naming the field, for whatever is wrong with it.
    """
    code = network_class(name, "model.name")
    options = with_classes(code, plain_options("model.options", given), num_classes)
    check_options("model.options", code, options)
    flags, network = training_flags(code), made(code, options)
    call = {flag: not value for flag, value in flags}
    with one_line(f"{name} on images {list(image_shape)}", inspect.getsourcefile(class_of(code)) or ""):
        layers = conversion_table(network, Rule("*", 32, 32), image_shape, **call)
    paths = [row.path for row in layers if row.rule]
    rules = stated_rules(quant.rules, quant) or usual_rules(paths, quant)
    _refuse_unused(rules, paths)
    found = OwnNetwork(name, code, plain_fields(network), rules)
    found.check(image_shape, num_classes)
    return found


def _refuse_unused(rules: tuple[Rule, ...], paths: list[str]) -> None:
    """Raise UserError, naming the layers, if a rule is the first match of none."""
    used = {next((rule for rule in rules if rule.matches(path.split("/"))), None) for path in paths}
    try:
        refuse_unused([rule for rule in rules if rule not in used])
    except UserError as error:
        raise UserError(f"quant.{error}; layers: {', '.join(paths)}") from error


def from_json(fields: Mapping[str, Any], network: Any) -> OwnNetwork:
    """The network of a model's description, with the code that a person names; the description imports nothing.

    Args:
        network: a Linen class, a partial of one, or "package.module:Network".
    Raises UserError for another class than the description's, and for fields that this class does not have.
    """
    _require_whole(fields)
    code = network_class(network)
    if class_of(code).__name__ != fields["class"]:
        found = f"found {class_of(code).__name__}, the model is of the class {fields['class']}"
        raise UserError(f"network={network}: {found}, allowed {fields['network']}")
    options = plain_options("options", fields["options"])
    require_known("options", code, options)
    training_flags(code)
    return OwnNetwork(fields["network"], code, options, rules_from_json(fields["rules"]))


def _require_whole(fields: Mapping[str, Any]) -> None:
    wanted = {"network": str, "class": str, "options": dict, "rules": list}
    for field, kind in wanted.items():
        if not isinstance(fields.get(field), kind):
            raise UserError(f"network description: {field}={shown(fields.get(field))}, allowed a {kind.__name__}")


def _require_trainable(name: str, variables: Mapping[str, Any]) -> None:
    for path, leaf in leaves_with_path(variables):
        collection = path.split("/")[0]
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise UserError(f"{name}: collection {collection} has {path} of type {leaf.dtype}, allowed numbers")
        if collection == "params" and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserError(f"{name}: {path} is {leaf.dtype}, allowed parameters of a real type")


def _require_logits(name: str, output: Any, num_classes: int) -> None:
    """Of a batch of two."""
    leaves = jax.tree.leaves(output)
    found = ", ".join(f"{getattr(leaf, 'dtype', '')}{list(getattr(leaf, 'shape', ()))}" for leaf in leaves)
    if not isinstance(output, jax.ShapeDtypeStruct):
        found = f"{type(output).__name__} of {found}"
    elif output.shape == (2, num_classes) and jnp.issubdtype(output.dtype, jnp.floating):
        return
    allowed = f"allowed real logits [batch, classes], here [2, {num_classes}]"
    raise UserError(f"{name}: gives {found} for 2 images, {allowed}")


def _require_same_shapes(name: str, initial: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Raise UserError, naming the collection, for one that does not keep its leaves and their shapes."""
    for collection, after in nn.meta.unbox(changed).items():
        shapes = [
            {path: (leaf.shape, leaf.dtype) for path, leaf in leaves_with_path(tree)}
            for tree in (initial[collection], after)
        ]
        if shapes[0] != shapes[1]:
            names = sorted(path for path in {**shapes[0], **shapes[1]} if shapes[0].get(path) != shapes[1].get(path))
            found = f"collection {collection} changes in a step ({', '.join(names)})"
            raise UserError(f"{name}: {found}, allowed collections whose variables keep their names, shapes and types")
