"""Any Linen network as a graph: JAX traces it, and what it does to the images is written down node by node.

Low-precision kernels, quantized activations, batch norms and plq's own operations are steps that the trace keeps whole
(`plq.layers.opaque`, `plq.runtime.steps`); everything else is JAX's primitives (`plq.runtime.primitives`).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from plq.errors import UserError, first_line
from plq.layers.opaque import Step, recording, step, step_p
from plq.layers.variables import leaf_path
from plq.runtime.array_nodes import Concatenate, Reshape
from plq.runtime.builder import Builder, Symbol
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.heads import Head
from plq.runtime.interpreter import computed, evaluate
from plq.runtime.node import Value
from plq.runtime.nodes import Activation, Normalize
from plq.runtime.primitives import PRIMITIVES
from plq.runtime.simplify import Simplifier
from plq.runtime.steps import QuantizedKernel, batch_norm, take_step

UNCHANGED = {"copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint"}


def lower(
    network: nn.Module,
    variables: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    arguments: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of a network without a branch, with its variables.

    Products are exact in the graph: a network that multiplies in bfloat16 (``dtype``) rounds what the graph does not.

    Args:
        variables: ``params`` and ``batch_stats``. mean, std: what images are normalized with, in units of 0..255.
        arguments: what the network is called with beside the images.
    Raises UserError, naming the module and the operation, for what has no node.
    """
    builder = _Lowering()
    builder.values[IMAGE] = Value(tuple(image_shape))
    numbers: dict[str, Any] = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
    image = builder.symbol(builder.append(Normalize, "normalize", [IMAGE], **numbers))
    jaxpr, outputs = _traced(network, variables, image.shape, dict(arguments or {}))
    results = evaluate(builder, jaxpr, [image])
    if not results or any(not isinstance(result, Symbol) or result.batch for result in results):
        found = "a result that does not have one row per image" if results else "nothing"
        raise UserError(f"{type(network).__name__}: gives {found}, allowed arrays [batch, ..., classes]")
    heads: tuple[Head, ...] = ()
    if len(results) > 1:
        names = [leaf_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(outputs)[0]]
        heads = tuple(Head(name, result.inner or (1,)) for name, result in zip(names, results, strict=True))
    nodes, tensors = Simplifier(builder, _output(builder, results)).run()
    graph = Graph(image_shape, nodes, tensors, heads)
    graph.check()
    return graph


def _output(builder: Builder, results: list[Symbol]) -> str:
    """The node that gives the result in float32; several results are flat and one behind the other."""
    builder.path = ""
    real = [_as_real(builder, result) for result in results]
    if len(real) == 1:
        return real[0].name
    flat = [builder.on(result, Reshape, "flat", shape=(math.prod(result.inner),)) for result in real]
    return builder.append(Concatenate, "outputs", [result.name for result in flat], axis=0)


def _as_real(builder: Builder, result: Symbol) -> Symbol:
    value = builder.values[result.name]
    if value.grid is not None:
        result = builder.on(result, Activation, "output", nonlinearity="identity")
    return result if value.shape else builder.on(result, Reshape, "output", shape=(1,))


def _traced(network: nn.Module, variables: Mapping[str, Any], shape: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """The jaxpr of a network for float32 images [BATCH, ...], variables as constants; shapes of its outputs."""
    run = lambda images: network.apply(variables, images, **arguments)
    with recording(lowering=True), nn.intercept_methods(_whole_batch_norms):
        try:
            return jax.make_jaxpr(run, return_shape=True)(jax.ShapeDtypeStruct(shape, jnp.float32))
        except (FlaxError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            found = f"cannot be traced with these variables ({type(error).__name__}: {first_line(error)})"
            if step_p.name in str(error):  # which has no batching rule
                found = "found jax.vmap or nn.vmap around a low-precision layer, allowed none"
            raise UserError(f"{type(network).__name__}: {found}") from error


def _whole_batch_norms(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """`nn.BatchNorm` over the last axis, with its running statistics, as one step."""
    module, output = context.module, next_function(*args, **kwargs)
    if type(module) is not nn.BatchNorm or context.method_name != "__call__" or not _is_plain(module, args, output):
        return output
    leaves = {**module.variables.get("batch_stats", {}), **module.variables.get("params", {})}
    path, options = "/".join(module.path), {"epsilon": module.epsilon}
    return step("batch_norm", path, options, partial(batch_norm, epsilon=module.epsilon), args[0], leaves)


def _is_plain(module: Any, args: Any, output: Any) -> bool:
    last = module.axis in (-1, output.ndim - 1) or module.axis in ((-1,), (output.ndim - 1,))
    running = not module.is_mutable_collection("batch_stats") and bool(args)
    return last and running and output.dtype == np.float32


class _Lowering(Builder):
    """The visitor of a trace: what is known is computed, what depends on the images becomes nodes."""

    def step(self, step: Step, values: list[Any]) -> Any:
        return take_step(self, step, values)

    def operation(self, equation: Any, values: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if not any(isinstance(value, Symbol) for value in values):
            kernel = name == "convert_element_type" and isinstance(values[0], QuantizedKernel)
            return values if kernel else computed(equation, [_plain(value) for value in values])
        if name in UNCHANGED:
            return values
        if name not in PRIMITIVES:
            raise self.fail(f"the operation {name} on what depends on the images", "one with a node")
        results = PRIMITIVES[name](self, equation, *values)
        return results if isinstance(results, list) else [results]

    def depends(self, values: Sequence[Any]) -> bool:
        return any(isinstance(value, Symbol) for value in values)

    def stacked(self, values: Sequence[Any]) -> Any:
        if not self.depends(values):
            return jnp.stack([_plain(value) for value in values])
        if not all(isinstance(value, Symbol) and value.batch == 0 for value in values):
            raise self.fail("a scan that stacks what depends on the images in some iterations", "in all of them")
        layers = [self.on(value, Reshape, "layer", shape=(1, *value.inner)).name for value in values]
        name = self.append(Concatenate, "stack", layers, axis=0)
        return Symbol(name, (len(values), *values[0].shape), 1)

    def scanned(self, value: Any, index: int) -> Any:
        if isinstance(value, Symbol):
            raise self.fail("a scan over what depends on the images", "a scan over variables")
        return _plain(value)[index]


def _plain(value: Any) -> Any:
    return value.real if isinstance(value, QuantizedKernel) else jnp.asarray(value)
