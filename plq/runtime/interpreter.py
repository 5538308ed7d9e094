"""Walks through a jaxpr: what is known is computed, what depends on the images becomes nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from plq.layers.opaque import step_p
from plq.runtime.builder import Builder, Symbol
from plq.runtime.primitives import PRIMITIVES
from plq.runtime.steps import QuantizedKernel, take_step

UNCHANGED = {"copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision", "sharding_constraint"}


def evaluate(
    builder: Builder, closed: ClosedJaxpr, arguments: Sequence[Any], path_of: Callable[[Any], str], outer: str = ""
) -> list[Any]:
    """The results of a jaxpr, each known (an array) or a `Symbol`.

    Args:
        arguments: likewise. path_of: the path of the module that an equation belongs to; empty: that is ``outer``.
    Raises UserError for an operation for which there is no node.
    """
    jaxpr: Jaxpr = closed.jaxpr
    known: dict[Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else known[atom]
    needed = _needed(jaxpr)
    for index, equation in enumerate(jaxpr.eqns):
        if index in needed:
            builder.path = path_of(equation) or outer
            results = _apply(builder, equation, [read(atom) for atom in equation.invars], path_of)
            known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Jaxpr) -> set[int]:
    """Which equations the results depend on."""
    wanted = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    needed = set()
    for index in reversed(range(len(jaxpr.eqns))):
        equation = jaxpr.eqns[index]
        if wanted & set(equation.outvars):
            needed.add(index)
            wanted |= {atom for atom in equation.invars if isinstance(atom, Var)}
    return needed


def _apply(builder: Builder, equation: Any, values: list[Any], path_of: Callable[[Any], str]) -> list[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive is step_p:
        return [take_step(builder, params["step"], values)]
    inner = _inner_jaxpr(primitive.name, params, values)
    if inner is not None:
        return evaluate(builder, inner, values[len(values) - len(inner.jaxpr.invars) :], path_of, builder.path)
    if primitive.name == "scan":
        return _unrolled(builder, params, values, path_of)
    if not any(isinstance(value, Symbol) for value in values):
        if primitive.name == "convert_element_type" and isinstance(values[0], QuantizedKernel):
            return values
        return _computed(equation, [_plain(value) for value in values])
    if primitive.name in UNCHANGED:
        return values
    if primitive.name not in PRIMITIVES:
        raise builder.fail(f"the operation {primitive.name} on what depends on the images", "one with a node")
    result = PRIMITIVES[primitive.name](builder, equation, *values)
    return [result]


def _inner_jaxpr(name: str, params: dict[str, Any], values: list[Any]) -> ClosedJaxpr | None:
    """The program inside an equation that is a call of one."""
    if name == "cond" and not isinstance(values[0], Symbol):
        return params["branches"][int(values[0])]
    if name in ("scan", "while", "cond"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = params.get(key)
        if found is not None:
            return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
    return None


def _unrolled(builder: Builder, params: dict[str, Any], values: list[Any], path_of: Callable[[Any], str]) -> list[Any]:
    """A scan, iteration after iteration; what it stacks may not depend on the images."""
    consts, carried = params["num_consts"], params["num_carry"]
    fixed, carry, scanned = values[:consts], values[consts : consts + carried], values[consts + carried :]
    if any(isinstance(value, Symbol) for value in scanned):
        raise builder.fail("a scan over what depends on the images", "a scan over variables")
    stacked: list[list[Any]] = []
    order = range(params["length"])
    path = builder.path
    for index in reversed(order) if params["reverse"] else order:
        inputs = [*fixed, *carry, *(_plain(x)[index] for x in scanned)]
        results = evaluate(builder, params["jaxpr"], inputs, path_of, path)
        carry = results[:carried]
        stacked.append(results[carried:])
    if params["reverse"]:
        stacked.reverse()
    columns = list(zip(*stacked, strict=True))
    if any(isinstance(value, Symbol) for column in columns for value in column):
        raise builder.fail("a scan that stacks what depends on the images", "a scan that carries it")
    return [*carry, *(np.stack([np.asarray(_plain(value)) for value in column]) for column in columns)]


def _computed(equation: Any, values: list[Any]) -> list[Any]:
    results = equation.primitive.bind(*values, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


def _plain(value: Any) -> Any:
    return value.real if isinstance(value, QuantizedKernel) else jax.numpy.asarray(value)
