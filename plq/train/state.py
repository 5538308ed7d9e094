"""All that training changes, in one pytree: what a checkpoint holds."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from plq.models.trainable import Trainable

Tree = dict[str, Any]


@flax.struct.dataclass
class Metrics:
    """Sums over the steps since the last report; with the state, so that a resumed run reports the same.

    ``broken_step`` is the first step whose loss or gradient was not finite, -1 while there is none.
    """

    loss: Array
    correct: Array
    examples: Array
    broken_step: Array

    @classmethod
    def zero(cls) -> "Metrics":
        # Distinct buffers: the step donates its state, and one buffer cannot be donated twice.
        loss, correct, examples = (jnp.asarray(np.zeros((), np.float32)) for _ in range(3))
        return cls(loss, correct, examples, jnp.asarray(np.full((), -1, np.int32)))


@flax.struct.dataclass
class State:
    """step: int32 scalar, the number of updates made.
    weights: {"params": ..., "ancillary": ...}, trained. statistics: {"batch_stats": ..., "ancillary_stats": ...} and
    whatever other collections the network has.
    moments: the optimizer's state over ``weights``. After removal the ancillary names are absent everywhere.
    """

    step: Array
    weights: Tree
    statistics: Tree
    moments: optax.OptState
    tally: Metrics

    @property
    def expanded(self) -> bool:
        """Whether the ancillary branch is still there."""
        return "ancillary" in self.weights

    @property
    def variables(self) -> Tree:
        """All collections, as Flax's ``apply`` takes them."""
        return {**self.weights, **self.statistics}


def init_state(
    architecture: Trainable,
    merge: str,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    seed: int | Array,
    norm: bool = True,
) -> State:
    """A fresh expanded state. The kept variables depend on the seed alone, not on there being a branch.

    Initial weights are drawn by the device's own generator ("rbg"): JAX's default one takes XLA:CPU more than
    a second to compile per layer. So one seed gives the same weights on one kind of device, not on all.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    key = jax.random.key(seed, impl="rbg")
    variables = _initializer(architecture, merge, norm)(key, images)
    weights: Tree = {name: variables[name] for name in ("params", "ancillary") if name in variables}
    names = dict.fromkeys(("batch_stats", *(["ancillary_stats"] if "ancillary" in weights else []), *variables))
    statistics = {name: variables.get(name, {}) for name in names if name not in weights}
    return State(jnp.zeros((), jnp.int32), weights, statistics, optimizer.init(weights), Metrics.zero())


@lru_cache(maxsize=4)
def _initializer(architecture: Trainable, merge: str, norm: bool) -> Callable[[Array, Array], Tree]:
    """Compiled once for all seeds."""
    init = architecture.expanded(merge, 1.0, norm).init
    return jax.jit(lambda key, images: nn.meta.unbox(init(key, images)))
