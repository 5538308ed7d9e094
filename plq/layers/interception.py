"""`nn.Conv` and `nn.Dense` computed by their low-precision counterparts while a network runs.

`nn.intercept_methods` hands over each call of a layer that a rule matches to its counterpart in `plq.layers.dropin`,
which works in the scope of the layer: every variable stays where the network has it.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core import FrozenDict, Scope

from plq.errors import UserError
from plq.layers.dropin import Conv, Dense, LowPrecision, layer_fields
from plq.layers.expanded import LayerFactor, checked_layer_factor, factor_at
from plq.layers.norm_axes import NO_AXIS, NormAxis, norm_axes
from plq.layers.rule import Rule, as_rules

COUNTERPARTS: dict[type[nn.Module], type[LowPrecision]] = {nn.Conv: Conv, nn.Dense: Dense}
_numbers = itertools.count()


def rule_for(module: nn.Module, rules: Iterable[Rule], root: tuple[str, ...] = ()) -> Rule | None:
    """The first rule that matches; None also for a layer that has no counterpart."""
    if type(module) not in COUNTERPARTS:
        return None
    return next((rule for rule in rules if rule.matches(module.path[len(root) :])), None)


@contextlib.contextmanager
def converting(
    rules: Iterable[Rule] | Rule, factor: LayerFactor | None = None, root: tuple[str, ...] = ()
) -> Iterator[set[Rule]]:
    """`plq.layers.convert.convert` for whatever runs inside: ``network.apply(variables, x, method="encode")``.

    ``root`` is what the paths of all layers begin with and the patterns do not. Gives the rules used so far. For a
    module that is itself made with `nn.jit` use `convert`: what is compiled already is not converted again.
    """
    interceptor = _Interceptor(as_rules(rules), checked_layer_factor(factor), root)
    with nn.intercept_methods(interceptor):
        yield interceptor.used


@dataclasses.dataclass(frozen=True)
class _Place:
    """The call of a module. ``host``: where variables go that a wrapper around the layer's own must not see.

    `nn.map_variables`, and with it `nn.WeightNorm` and `nn.SpectralNorm`, hands a layer a changed copy of all that is
    in its scope. What the layer has beside its own variables then lives with the caller, ``host``; from within a JAX
    transformation that is out of reach.
    """

    scope: Scope
    host: Scope | None = None
    unreachable: bool = False

    def inside(self, scope: Scope) -> "_Place":
        """The place of a module called from here."""
        root = scope.root
        if root._variables is self.scope.root._variables:
            return dataclasses.replace(self, scope=scope)
        if root.trace_level == self.scope.root.trace_level:  # a copy of the variables without a JAX transformation
            return _Place(scope, self.host or self.scope, self.unreachable)
        return _Place(scope, self.host, unreachable=self.host is not None)

    def home(self) -> Scope | None:
        """The scope for what a layer called here has beside its own variables; None: its own. Raises UserError."""
        if self.host is None:
            return None
        if self.unreachable:
            where = f"{_named(self.scope.path)}: found nn.scan, nn.vmap, nn.remat or nn.jit within nn.map_variables"
            raise UserError(f"{where}, allowed around it")
        mapped, path = self.scope.root.path, self.scope.path
        if self.host.path[: len(mapped)] == mapped:
            found = f"found nn.map_variables over the variables of the whole of {_named(mapped)}"
            raise UserError(f"{_named(path)}: {found}, allowed over a layer that it calls")
        return self.host.push("_".join((*path[len(mapped) - 1 :], "converted")), reuse=True)


@dataclasses.dataclass
class _Interceptor:
    rules: tuple[Rule, ...]
    factor: LayerFactor | None
    root: tuple[str, ...]
    used: set[Rule] = dataclasses.field(default_factory=set)
    places: list[_Place] = dataclasses.field(default_factory=list)
    axes: Mapping[str, NormAxis] = dataclasses.field(default_factory=dict)
    looking: bool = False

    def __call__(self, next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, scope = context.module, context.module.scope
        if scope is None or self.looking or context.method_name == "setup":
            return next_function(*args, **kwargs)
        if not self.places:
            self.axes = self._norm_axes(module, context.method_name, args, kwargs)
        place = self.places[-1].inside(scope) if self.places else _Place(scope)
        rule = rule_for(module, self.rules, self.root) if context.method_name == "__call__" else None
        if rule is not None:
            self.used.add(rule)
            return self._layer(module, rule, place)(*args, **kwargs)
        mark(scope, self.rules, self.factor)
        self.places.append(place)
        try:
            return next_function(*args, **kwargs)
        finally:
            self.places.pop()

    def _layer(self, module: Any, rule: Rule, place: _Place) -> Any:
        """In a rewound scope: a layer may be called more than once."""
        axis = self.axes.get("/".join(module.path), NO_AXIS)
        factor = factor_at(self.factor, "/".join(module.path[len(self.root) :])) if rule.expand else None
        fields = {**layer_fields(module), **rule.fields(factor), **dataclasses.asdict(axis)}
        return COUNTERPARTS[type(module)](**fields, home=place.home(), parent=module.scope.rewound())

    def _norm_axes(self, module: nn.Module, method: str, args: Any, kwargs: Any) -> Mapping[str, NormAxis]:
        """Of the branches, if their norms use the statistics of the batch in this call."""
        if self.factor is None or not any(rule.expand for rule in self.rules) or module.is_initializing():
            return {}
        if not module.is_mutable_collection("ancillary_stats"):
            return {}
        self.looking = True
        try:
            return norm_axes(module, tuple(COUNTERPARTS), method, args, kwargs)
        finally:
            self.looking = False


def mark(scope: Scope, rules: tuple[Rule, ...], factor: LayerFactor | None) -> None:
    """Note the conversion in a flag of the scope, by which `nn.jit` tells calls apart: another factor compiles anew.

    A traced factor belongs to one trace alone, and an initialization is to see every layer: these never match.
    """
    factors = jax.tree.leaves(factor)
    fresh = scope.get_flag("initializing", False) or any(isinstance(own, jax.core.Tracer) for own in factors)
    value = None if fresh or not factors else tuple(float(np.asarray(own)) for own in factors)
    scope.flags = FrozenDict({**scope.flags, "plq.conversion": next(_numbers) if fresh else (rules, value)})


def _named(path: tuple[str, ...]) -> str:
    return "/".join(path) or "the network"
