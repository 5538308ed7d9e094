"""Over which named axes a network's batch norms take their statistics, read off an abstract run of it."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import nonempty_axis_env_DO_NOT_USE as inside_named_axes

from plq.layers.expanded import AncillaryNorm


@dataclasses.dataclass(frozen=True)
class NormAxis:
    """The fields of `nn.BatchNorm` by which replicas share their statistics."""

    axis_name: Any = None
    axis_index_groups: Any = None


NO_AXIS = NormAxis()


def norm_axes(
    module: nn.Module, layers: tuple[type[nn.Module], ...], method: str, args: Any, kwargs: Any
) -> dict[str, NormAxis]:
    """For each layer of these types, by its path, the axes of the batch norm that is called next after it.

    After the last norm they are those of the last one. Empty outside pmap, vmap and shard_map with named axes.

    Args:
        module: bound. method, args, kwargs: the call of it that is about to be made.
    """
    if not inside_named_axes():
        return {}
    calls = _calls(module, layers, method, args, kwargs)
    axes, found = [call for call in calls if isinstance(call, NormAxis)], {}
    for call in reversed(calls):
        if isinstance(call, NormAxis):
            axes = [call]
        elif axes:
            found["/".join((*module.path, *call))] = axes[-1]
    return found


def _calls(
    module: nn.Module, layers: tuple[type[nn.Module], ...], method: str, args: Any, kwargs: Any
) -> list[tuple[str, ...] | NormAxis]:
    """In the order of an abstract run: the path of each layer, the axes of each batch norm."""
    calls: list[tuple[str, ...] | NormAxis] = []

    def record(next_function, args, kwargs, context):
        called: Any = context.module if context.method_name == "__call__" else None
        if type(called) in layers:
            calls.append(called.path)
        elif isinstance(called, nn.BatchNorm) and not isinstance(called, AncillaryNorm):
            calls.append(NormAxis(called.axis_name, called.axis_index_groups))
        return next_function(*args, **kwargs)

    scope: Any = module.scope

    def run() -> None:
        rngs = {name: jax.random.key(0) for name in scope.rngs}
        unbound.apply(variables, *args, rngs=rngs, mutable=scope.mutable, method=method, **kwargs)

    unbound, variables = module.unbind()
    with nn.intercept_methods(record):
        jax.eval_shape(run)
    return calls
