"""Whether a frozen model computes what the network does that it was made of, and where it does not, why.

Both give the same codes at every layer but for ties: the network adds rounded products in floating point, the frozen
model adds integers, and a number within their difference of the middle between two codes may fall to either side. One
code that differs changes everything behind it by a little. So the rule is:

    In each image, at the first activation (in the order of the graph) at which any code differs, what the frozen
    model rounds is within `TIE` of the grid's span of where it would get the network's code. Where no code differs,
    the logits do so by at most `LOGITS` of the largest one.

Anything else, as a kernel, a padding or a scale that is not the network's, breaks it at once.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.data.augment import normalize
from plq.layers.opaque import Step, recording
from plq.runtime.builder import free_name
from plq.runtime.frozen import FrozenModel
from plq.runtime.interpreter import computed, evaluate
from plq.runtime.nodes import Activation

TIE = 2.0**-14
LOGITS = 2.0**-14
DRAWS = 6


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first one in an image: at which node, in how many codes, and by how much: see the module.

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


@dataclasses.dataclass(frozen=True)
class Reference:
    """The plain network with products in float32, its variables, and what images are normalized with."""

    network: nn.Module
    variables: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def results(self, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits, and what each activation gives, by its path; of one that is called again path_2, path_3, ..."""
        return jax.device_get(self._results(self.variables, images))

    @cached_property
    def _results(self):
        def compute(variables: dict[str, Any], images: Array) -> tuple[Any, dict[str, Array]]:
            with recording():
                run = lambda variables, images: self.network.apply(variables, normalize(images, self.mean, self.std))
                traced = jax.make_jaxpr(run)(variables, images)
            watcher = _Watcher()
            found = evaluate(watcher, traced, jax.tree.leaves((variables, images)))
            flat = [result.reshape(len(images), -1) for result in found]
            return found[0] if len(found) == 1 else jnp.concatenate(flat, 1), watcher.seen

        return jax.jit(compute)


class _Watcher:
    """The visitor of a trace that computes everything, and keeps what activations give."""

    def __init__(self) -> None:
        self.path = ""
        self.seen: dict[str, Array] = {}

    def step(self, step: Step, values: list[Any]) -> Any:
        result = step.function(*jax.tree.unflatten(step.tree, values))
        if step.kind == "activation":
            self.seen[free_name(step.path, self.seen)] = result
        return result

    def operation(self, equation: Any, values: list[Any]) -> list[Any]:
        return computed(equation, values)

    def depends(self, values: Sequence[Any]) -> bool:
        return False

    def stacked(self, values: Sequence[Any]) -> Any:
        return jnp.stack(list(values))

    def scanned(self, value: Any, index: int) -> Any:
        return value[index]


def changed_by_last_bits(classes_with: Callable[[Any], np.ndarray], variables: Any, classes: np.ndarray) -> int:
    """In how many images a model gives another class when the last bits of its numbers change, in any of `DRAWS` ways.

    A deep network of many bits, or one that has hardly learned, changes many then; nobody can say which of its classes
    is the right one. So does a network in which a common sum is a tie: one draw may leave it where it was.

    Args:
        classes_with: from variables to the classes of all images. classes: those with the variables as they are.
    """
    changed = np.zeros(np.shape(classes), bool)
    for draw in range(DRAWS):
        changed |= classes_with(with_other_last_bits(variables, draw)) != classes
    return int(changed.sum())


def with_other_last_bits(variables: Any, draw: int) -> Any:
    """Arrays, each real number larger or smaller by 2⁻²³ of itself: what float arithmetic leaves open anyway."""
    random = np.random.default_rng(draw)

    def change(x: Any) -> np.ndarray:
        if np.asarray(x).dtype != np.float32:
            return x
        return np.asarray(x) * (1 + random.choice(np.array([-1, 1], np.float32), np.shape(x)) * np.float32(2**-23))

    return jax.tree.map(change, variables)


def differences(model: FrozenModel, reference: Reference, images: np.ndarray) -> list[Difference]:
    """The first difference in each image that has one. Images: uint8 [batch, *image_shape]."""
    graph = model.frozen.graph
    results, rounded = model.results(images)
    logits, seen = reference.results(images)
    found: dict[int, Difference] = {}
    for node in graph.nodes:
        if isinstance(node, Activation) and node.grid is not None:
            codes, apart = _apart(node, results[node.name], rounded[node.name], seen[node.name])
            for image in np.flatnonzero(codes):
                found.setdefault(int(image), Difference(int(image), node.name, int(codes[image]), float(apart[image])))
    apart = distances(results[graph.output], logits)
    for image in np.flatnonzero(~(apart <= LOGITS)):
        found.setdefault(int(image), Difference(int(image), graph.output, 0, float(apart[image])))
    return [found[image] for image in sorted(found)]


def distances(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each image: how far its logits are from those wanted, as a share of the largest finite one.

    Numbers that are not finite must be equal; else the distance is infinite.
    """
    found, wanted = (x.reshape(len(x), -1) for x in (found, wanted))
    both = np.isfinite(found) & np.isfinite(wanted)
    largest = max(np.abs(wanted, where=both, out=np.zeros_like(wanted)).max(initial=0), 1e-30)
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    apart = np.abs(np.subtract(found, wanted, where=both, out=np.zeros_like(wanted))) / largest
    return np.where(both, apart, np.where(same, 0, np.inf)).max(1, initial=0)


def _apart(node: Activation, result: np.ndarray, rounded: np.ndarray, value: np.ndarray) -> tuple[Any, Any]:
    """For each image: how many codes are not those of the network's values, and the largest distance from them."""
    assert node.grid is not None
    integers = node.grid.integers
    middles = np.concatenate([[-np.inf], (integers[1:] + integers[:-1]) / 2, [np.inf]])
    code = np.searchsorted(middles[1:-1], value / np.float32(node.scale))
    v = rounded if node.grid.levels is None else rounded + node.grid.offset
    outside = np.maximum(np.maximum(middles[code] - v, v - middles[code + 1]), 0) / (integers[-1] - integers[0])
    other = result != integers[code]
    batch = len(other)
    return other.reshape(batch, -1).sum(1), np.where(other, outside, 0).reshape(batch, -1).max(1)
