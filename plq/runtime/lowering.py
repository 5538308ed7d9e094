"""Any Linen network as a graph: JAX traces it, and what it does to the images is written down node by node.

Low-precision kernels, quantized activations, batch norms and plq's own operations are steps that the trace keeps whole
(`plq.layers.opaque`, `plq.runtime.steps`); everything else is JAX's primitives (`plq.runtime.primitives`).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from plq.errors import UserError
from plq.layers.opaque import recording, step
from plq.runtime.array_nodes import Reshape
from plq.runtime.builder import BATCH, Builder, Symbol
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.interpreter import evaluate
from plq.runtime.node import Value
from plq.runtime.nodes import Activation, Normalize
from plq.runtime.simplify import Simplifier


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
    builder = Builder()
    builder.values[IMAGE] = Value(tuple(image_shape))
    numbers = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
    image = builder.symbol(builder.append(Normalize, "normalize", [IMAGE], **numbers))
    jaxpr = _traced(network, variables, image.shape, dict(arguments or {}))
    (result, *others) = evaluate(builder, jaxpr, [image], _path_of)
    if others or not isinstance(result, Symbol) or result.batch:
        found = f"{1 + len(others)} results" if others else "a result that does not have one row per image"
        raise UserError(f"{type(network).__name__}: found {found}, allowed one array [batch, ..., classes]")
    nodes, tensors = Simplifier(builder, _output(builder, result)).run()
    graph = Graph(tuple(image_shape), nodes, tensors)
    graph.check()
    return graph


def _output(builder: Builder, result: Symbol) -> str:
    """The node that gives the result in float32, apart from the normalized image itself."""
    builder.path = ""
    value = builder.values[result.name]
    if value.grid is not None:
        result = builder.on(result, Activation, "output", nonlinearity="identity")
    if not value.shape:
        result = builder.on(result, Reshape, "output", shape=(1,))
    return result.name


def _traced(network: nn.Module, variables: Mapping[str, Any], shape: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """The jaxpr of a network for float32 images [BATCH, ...], with its variables as constants."""
    def run(images: Any) -> Any:
        with nn.intercept_methods(_whole_batch_norms):
            return network.apply(variables, images, **arguments)

    with recording():
        try:
            return jax.make_jaxpr(run)(jax.ShapeDtypeStruct(shape, jnp.float32))
        except NotImplementedError as error:
            if "plq_step" not in str(error):
                raise
            raise UserError(f"{type(network).__name__}: found jax.vmap around a quantized layer, allowed none") from error
        except (FlaxError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{type(network).__name__}: cannot be traced with these variables ({reason})") from error


def _whole_batch_norms(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """`nn.BatchNorm` over the last axis, with its running statistics, as one step."""
    module, output = context.module, next_function(*args, **kwargs)
    if type(module) is not nn.BatchNorm or context.method_name != "__call__" or not _is_plain(module, args, output):
        return output
    leaves = {**module.variables.get("batch_stats", {}), **module.variables.get("params", {})}
    path, options = "/".join(module.path), {"epsilon": module.epsilon}
    return step("batch_norm", path, options, lambda x, leaves: output, args[0], leaves)


def _is_plain(module: Any, args: Any, output: Any) -> bool:
    last = module.axis in (-1, output.ndim - 1) or module.axis in ((-1,), (output.ndim - 1,))
    running = not module.is_mutable_collection("batch_stats") and bool(args)
    return last and running and output.dtype == np.float32


def _path_of(equation: Any) -> str:
    """The path of the module that an equation belongs to, by the scopes that Flax names."""
    parts = str(equation.source_info.name_stack).split("/")
    parts = [part for part in parts if part and "(" not in part]
    if parts[:2] == ["Converted", "network"]:
        parts = parts[1:]
    return "/".join(part for part in parts[1:] if "." not in part and part not in ("Conv", "Dense"))
