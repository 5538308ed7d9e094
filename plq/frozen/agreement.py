"""Whether a frozen model computes what the network does that it was made of, and where it does not, why.

Both give the same codes at every layer but for ties: the network adds rounded products in floating point, the frozen
model adds integers, and where what is rounded next lies within their difference of the middle between two codes, it may
fall to either side. One code that differs changes everything behind it by a little. So the rule is:

    In each image, at the first activation (in the order of the graph) at which any code differs, the numbers that
    were rounded differ by at most `TIE` of the grid's span. Where no code differs, the logits do so by at most
    `LOGITS` of the largest one.

Anything else, as a kernel, a padding or a scale that is not the network's, breaks it at once.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.data.augment import normalize
from plq.frozen.arithmetic import before_rounding
from plq.frozen.model import FrozenModel
from plq.frozen.nodes import Activation, Normalize
from plq.layers.activation import Activation as ActivationLayer

TIE = 2.0**-14
LOGITS = 2.0**-14


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first one in an image: at which node, in how many codes, and how far apart what was rounded is.

    ``apart`` is a share of the grid's span, or, if only logits differ, of the largest one; ``codes`` is then 0.
    """

    image: int
    node: str
    codes: int
    apart: float

    @property
    def tie(self) -> bool:
        """Whether the rule allows it."""
        return self.codes > 0 and self.apart <= TIE


def differences(
    model: FrozenModel, network: nn.Module, variables: dict[str, Any], images: np.ndarray
) -> list[Difference]:
    """The first difference in each image that has one.

    Args:
        network, variables: the plain network, with products in float32. images: uint8 [batch, *image_shape].
    """
    graph = model.frozen.graph
    results, rounded = jax.device_get(jax.jit(model.runner.results)(model.runner.arrays, images))
    logits, seen = jax.device_get(_reference(model, network)(variables, images))
    found: dict[int, Difference] = {}
    for node in graph.nodes:
        if isinstance(node, Activation) and node.grid is not None:
            codes, apart = _apart(node, results[node.name], rounded[node.name], *seen[node.name])
            for image in np.flatnonzero(codes):
                found.setdefault(int(image), Difference(int(image), node.name, int(codes[image]), float(apart[image])))
    apart = np.abs(results[graph.output] - logits).max(1) / max(np.abs(logits).max(), 1e-30)
    for image in np.flatnonzero(apart > LOGITS):
        found.setdefault(int(image), Difference(int(image), graph.output, 0, float(apart[image])))
    return [found[image] for image in sorted(found)]


def _apart(
    node: Activation, result: np.ndarray, rounded: np.ndarray, given: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each image: how many codes differ, and how far apart, as a share of the span, what was rounded is there."""
    assert node.grid is not None
    span = float(node.grid.integers[-1] - node.grid.integers[0])
    other = np.abs(result * np.float32(node.scale) - value) > node.scale / 2
    v = before_rounding(node, jnp.asarray(given), jnp.float32(node.divisor), jnp.float32(node.factor))
    apart = np.where(other, np.abs(rounded - np.asarray(v)), 0) / span
    batch = len(other)
    return other.reshape(batch, -1).sum(1), apart.reshape(batch, -1).max(1)


def _reference(model: FrozenModel, network: nn.Module):
    """Compiled: (variables, images) -> logits, and what each activation gets and gives, by its path."""
    first = model.frozen.graph.nodes[0]
    assert isinstance(first, Normalize)

    def run(variables: dict[str, Any], images: Array) -> tuple[Any, dict[str, tuple[Array, Array]]]:
        seen: dict[str, tuple[Array, Array]] = {}

        def watch(next_function, args, kwargs, context):
            output = next_function(*args, **kwargs)
            if isinstance(context.module, ActivationLayer) and context.method_name == "__call__":
                seen["/".join(context.module.path)] = (args[0], output)
            return output

        with nn.intercept_methods(watch):
            logits = network.apply(variables, normalize(images, first.mean, first.std))
        return logits, seen

    return jax.jit(run)
