"""Walks through a jaxpr, into the programs inside it, and hands each step and each operation to a visitor."""

from collections.abc import Sequence
from typing import Any, Protocol

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from plq.layers.opaque import Step, step_p


class Visitor(Protocol):
    """What is done on the way. ``path``: of the module that the operation at hand belongs to."""

    path: str

    def step(self, step: Step, values: list[Any]) -> Any:
        """The result of a step that the trace kept whole."""

    def operation(self, equation: Any, values: list[Any]) -> list[Any]:
        """The results of one of JAX's primitives."""

    def depends(self, values: Sequence[Any]) -> bool:
        """Whether any of the values is none that JAX can compute with."""

    def stacked(self, values: Sequence[Any]) -> Any:
        """What the iterations of a scan give, along a new first axis."""

    def scanned(self, value: Any, index: int) -> Any:
        """What an iteration of a scan sees of a value that is scanned."""


def evaluate(visitor: Visitor, closed: ClosedJaxpr, arguments: Sequence[Any], outer: str = "") -> list[Any]:
    """The results of a jaxpr. ``outer``: the path of equations that belong to no module."""
    jaxpr: Jaxpr = closed.jaxpr
    known: dict[Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else known[atom]
    needed = _needed(jaxpr)
    for index, equation in enumerate(jaxpr.eqns):
        if index in needed:
            visitor.path = _path_of(equation) or outer
            results = _apply(visitor, equation, [read(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def computed(equation: Any, values: list[Any]) -> list[Any]:
    """The results of an operation, by JAX."""
    results = equation.primitive.bind(*values, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


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


def _apply(visitor: Visitor, equation: Any, values: list[Any]) -> list[Any]:
    primitive, params, path = equation.primitive, equation.params, visitor.path
    if primitive is step_p:
        return [visitor.step(params["step"], values)]
    if primitive.name == "scan" and (visitor.depends(values) or _has_steps(params["jaxpr"])):
        return _unrolled(visitor, params, values)
    if primitive.name == "cond" and visitor.depends(values[1:]) and not visitor.depends(values[:1]):
        return evaluate(visitor, params["branches"][int(values[0])], values[1:], path)
    if primitive.name in ("scan", "while", "cond"):
        return visitor.operation(equation, values)
    inner = _inner_jaxpr(params)
    if inner is not None:
        return evaluate(visitor, inner, values, path)
    return visitor.operation(equation, values)


def _inner_jaxpr(params: dict[str, Any]) -> ClosedJaxpr | None:
    """The program inside an equation that is a call of one: of `jax.jit`, `jax.checkpoint`, custom derivatives."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = params.get(key)
        if found is not None:
            return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
    return None


def _has_steps(closed: Any) -> bool:
    jaxpr = getattr(closed, "jaxpr", closed)
    inner = lambda equation: [p for p in equation.params.values() if isinstance(p, ClosedJaxpr | Jaxpr)]
    return any(e.primitive is step_p or any(map(_has_steps, inner(e))) for e in jaxpr.eqns)


def _unrolled(visitor: Visitor, params: dict[str, Any], values: list[Any]) -> list[Any]:
    """A scan, iteration after iteration."""
    consts, carried, path = params["num_consts"], params["num_carry"], visitor.path
    fixed, carry, scanned = values[:consts], values[consts : consts + carried], values[consts + carried :]
    stacked: list[list[Any]] = []
    order = range(params["length"])
    for index in reversed(order) if params["reverse"] else order:
        inputs = [*fixed, *carry, *(visitor.scanned(x, index) for x in scanned)]
        results = evaluate(visitor, params["jaxpr"], inputs, path)
        carry = results[:carried]
        stacked.append(results[carried:])
    columns = zip(*(stacked[::-1] if params["reverse"] else stacked), strict=True)
    return [*carry, *(visitor.stacked(column) for column in columns)]


def _path_of(equation: Any) -> str:
    """The path of the module that an equation belongs to, by the scopes that Flax names; empty: of none."""
    parts = [part for part in str(equation.source_info.name_stack).split("/") if part and "(" not in part]
    if parts[1:2] == ["network"]:  # of `plq.layers.convert.Converted`
        parts = parts[1:]
    return "/".join(part for part in parts[1:] if "." not in part and part not in ("Conv", "Dense"))
