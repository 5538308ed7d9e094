"""Any Linen network in low precision, with or without the ancillary branches, its code left as it is.

    rules = [Rule("head", 8, 8, expand=False), Rule("block*", 2, 2)]
    expanded = convert(network, rules, factor)      # train, f from 1 to 0
    served = convert(network, rules)                # the same variables after plq.checkpoint.prune.prune

Quantizers that learn ("lsq", "apot", "pact", ...) have their scales among the parameters. Those of activations start
as constants: set them from a batch before training, and with ``kernels=True`` those of weights too where the kernels
come from a float network of one's own:

    variables = plq.layers.scales.calibrate(convert(network, rules), variables, images, kernels=True)

Every variable stays where the network has it; see `plq.layers.interception` for how.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import flax.linen as nn
import jax
import numpy as np

from plq.checks import instance
from plq.errors import UserError
from plq.layers.expanded import LayerFactor, checked_layer_factor
from plq.layers.interception import converting, mark, rule_for
from plq.layers.nnx_kind import is_nnx
from plq.layers.rule import Rule, as_rules, refuse_unused

if TYPE_CHECKING:
    from flax import nnx

__all__ = ["Conversion", "Converted", "Rule", "conversion_table", "convert", "converting", "unused_rules"]
LISTED = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral, nn.Einsum)


class Converted(nn.Module):
    """The network that `convert` returns; variables and random numbers are those of ``network`` itself."""

    network: nn.Module
    rules: tuple[Rule, ...]
    factor: LayerFactor | None = None

    def setup(self):
        assert self.scope is not None
        mark(self.scope, self.rules, self.factor)
        _take_the_place_of(self, self.network)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        network: Any = self.network
        with converting(self.rules, self.factor, self.path) as used:
            output = network(*args, **kwargs)
        if self.is_initializing():
            refuse_unused([rule for rule in self.rules if rule not in used])
        return output


def _take_the_place_of(outer: Any, network: Any) -> None:
    """Give the network the scope of ``outer``, whose field it is; if it is bound elsewhere, ``outer`` its scope.

    Submodules that are fields have their scopes already, made in that of a submodule "network": with other random
    numbers and paths. They get those that they have without ``outer``.
    """
    field = network.scope
    if field.parent is outer.scope:
        outer.scope.reservations.pop(field.name, None)
    nn.share_scope(outer, network)
    if network.scope is not field:
        _move_children(network, field)


def _move_children(module: Any, former: Any) -> None:
    """Give each child that has a scope below ``former`` one below the module's scope, and its children in turn."""
    for child in module._state.children.values():
        if isinstance(child, nn.Module) and child.scope is not None and child.scope.path[:-1] == former.path:
            scope = child.scope
            object.__setattr__(child, "scope", module.scope.push(child.name, reuse=True))
            _move_children(child, scope)


@overload
def convert(network: nn.Module, rules: Iterable[Rule] | Rule, factor: LayerFactor | None = None) -> Converted: ...


@overload
def convert(network: "nnx.Module", rules: Iterable[Rule] | Rule, factor: Any = None) -> "nnx.Module": ...


def convert(network: Any, rules: Iterable[Rule] | Rule, factor: LayerFactor | None = None) -> Any:
    """The network with each `nn.Conv` and `nn.Dense` computed as the first rule that matches its path says.

    Takes the arguments of ``network``; see `plq.layers.dropin.LowPrecision` for what a layer computes and for when
    the branch trains. ``init`` gives ``params`` equal to the network's own, and beside them the learned scales. Norms
    of branches share their statistics over the named axes over which the network's batch norm behind them does.

    Args:
        network: a Linen network; or an `nnx.Module`, of which a converted copy is given (`plq.layers.nnx_layers`).
        factor: f in [0, 1], traced or not: one compilation serves all values; or one for each layer with a branch, by
            its path. None: no branch, the network that is served.
    Raises UserError for a network that is converted already, and in ``init`` if a rule matches nothing (see
    `unused_rules`). Subclasses of the two layers are left as they are. A network made with `nn.scan` or `nn.vmap` must
    name the ancillary collections in ``variable_axes``, as the message says otherwise.
    """
    if is_nnx(network):
        from plq.layers.nnx_layers import convert_module

        return convert_module(network, as_rules(rules), factor)
    instance("network", network, nn.Module, "a flax.linen.Module or a flax.nnx.Module")
    if isinstance(network, Converted):
        raise UserError("network: found one that is converted already, allowed the network that was given to convert")
    return Converted(network, as_rules(rules), checked_layer_factor(factor))


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What one layer became. ``rule`` None: it is left as it is (no rule, or no counterpart in low precision)."""

    path: str
    kind: str
    rule: Rule | None

    def __str__(self) -> str:
        if self.rule is None:
            return f"{self.path}: {self.kind}, left as it is"
        bits = f"W{self.rule.weight_bits}/A{self.rule.activation_bits}"
        return f"{self.path}: {self.kind}, {bits}{', expanded' if self.rule.expand else ''} ({self.rule.pattern})"


def conversion_table(
    network: nn.Module, rules: Iterable[Rule] | Rule, image_shape: tuple[int, ...], **arguments: Any
) -> list[Conversion]:
    """One row per convolution or dense layer of the network, in the order in which they are called.

    Args:
        image_shape: of one example. arguments: what the network is called with beside a batch (train=False).
    """
    rows: dict[str, Conversion] = {}
    rules = as_rules(rules)

    def record(next_function, args, kwargs, context):
        module, path = context.module, "/".join(context.module.path)
        if context.method_name == "__call__" and isinstance(module, LISTED):
            rows.setdefault(path, Conversion(path, _kind(module), rule_for(module, rules)))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(record):
        batch = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
        jax.eval_shape(partial(network.init, **arguments), jax.random.key(0), batch)
    return list(rows.values())


def unused_rules(
    network: nn.Module,
    rules: Iterable[Rule] | Rule,
    image_shape: tuple[int, ...],
    strict: bool = False,
    **arguments: Any,
) -> list[Rule]:
    """The rules that are no layer's first match. Arguments as for `conversion_table`.

    Raises UserError naming them if ``strict``.
    """
    rules = as_rules(rules)
    table = conversion_table(network, rules, image_shape, **arguments)
    unused = [rule for rule in rules if rule not in {row.rule for row in table}]
    if strict:
        refuse_unused(unused)
    return unused


def _kind(module: Any) -> str:
    name = type(module).__name__
    if not isinstance(module, nn.Conv):
        return name
    size = (module.kernel_size,) if isinstance(module.kernel_size, int) else module.kernel_size
    groups = module.feature_group_count
    return f"{name} {'x'.join(map(str, size))}" + (f" /{groups}" if groups > 1 else "")
