"""A diagnostic: how much of each expanded layer's output the branch carries."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plq.data.augment import normalize
from plq.layers.dropin import LowPrecision
from plq.layers.expanded import ExpandedUnit
from plq.layers.unit import Unit
from plq.train.state import State
from plq.train.step import TrainSpec


def branch_shares(task: TrainSpec, state: State, images: Array) -> dict[str, Array]:
    """mean|f a| / (mean|low| + mean|f a|) of each expanded layer, by its name, at the f of the state's step.

    Args:
        images: uint8 [batch, height, width, channels]; the network runs in evaluation mode. Empty without a branch.
    """
    low: dict[str, Array] = {}
    ancillary: dict[str, Array] = {}

    def record(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output, module, path = next_function(*args, **kwargs), context.module, "/".join(context.module.path)
        if isinstance(module, Unit) and context.method_name == "__call__":
            low[path] = jnp.abs(output).mean()
        if isinstance(module, LowPrecision) and context.method_name == "merged":
            low[path] = jnp.abs(args[0]).mean()
        if isinstance(module, (ExpandedUnit, LowPrecision)) and context.method_name == "ancillary":
            ancillary[path] = jnp.abs(module.factor * output).mean()
        return output

    with nn.intercept_methods(record):
        task.network(state).apply(state.variables, normalize(images, task.mean, task.std), train=False)
    return {path: size / jnp.maximum(low[path] + size, 1e-30) for path, size in ancillary.items()}
