"""The factor f of the ancillary branch: 1 at the start, exactly 0 from a known step on.

f is a pure function of the training step, so a resumed run goes on where it was.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.checks import at_least, choice, integer, typed, within
from plq.errors import UserError


@dataclasses.dataclass(frozen=True)
class FactorSchedule:
    """f(t) for a decay of T = ``decay_steps`` steps, with u = min(t, T) / T:

        cosine       (1 + cos(pi u)) / 2                          EXP-Net's SVHN network
        staircase    rate ** floor(u M), M = stages               EXP-Net's AlexNet
        linear       1 - u
        polynomial   (1 - u) ** power
        constant     value                                        0: plain low precision

    and f(t) = 0 for t >= T. M is the number of stages after which rate ** M <= cutoff, so each stage lasts
    T / M steps and what the cut-off sets to zero is where the decay ends. Always 0 <= f <= 1.

    ``order``: all layers "together", or one after another, each within its n-th part of T, from "front" or "back"
    on; ``layers`` are then the names of the n layers, first to last. With an order the factor itself is the mean.
    """

    name: str
    decay_steps: int
    rate: float = 0.5
    cutoff: float = 0.001
    power: float = 2.0
    value: float = 0.0
    order: str = "together"
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        choice("factor.name", self.name, SHAPES)
        choice("factor.order", self.order, ORDERS)
        if not 1 <= integer("factor.decay_steps", self.decay_steps) < 2**31:
            raise UserError(f"factor.end: gives a decay of {self.decay_steps} steps, allowed 1 or more, below 2**31")
        for field in ("rate", "cutoff"):
            within(f"factor.{field}", getattr(self, field), lambda share: 0 < share < 1, "above 0 and below 1")
        within("factor.power", self.power, lambda power: power > 0, "above 0")
        within("factor.value", self.value, lambda value: 0 <= value <= 1, "0 <= value <= 1")
        typed("factor.layers", self.layers, tuple[str, ...])

    @property
    def end_step(self) -> int | None:
        """The first step with f = 0 for good; None if f never gets there."""
        if self.name == "constant":
            return 0 if self.value == 0 else None
        return self.decay_steps

    def __call__(self, step: Array | int) -> Array:
        """f at this step: float32 scalar in [0, 1]; ``step`` may be traced. Raises UserError for what is no integer."""
        by_layer = self.by_layer(step)
        return jnp.mean(jnp.stack(list(by_layer.values()))) if isinstance(by_layer, dict) else by_layer

    def by_layer(self, step: Array | int) -> Array | dict[str, Array]:
        """f of each layer by name; one for all if they decay together."""
        step = _step(step)
        if self.order == "together" or not self.layers:
            return self._at(step)
        count, whole = len(self.layers), self.decay_steps
        names = self.layers if self.order == "front" else self.layers[::-1]
        return {name: self._at(jnp.clip(count * step - turn * whole, 0, whole)) for turn, name in enumerate(names)}

    def _at(self, step: Array) -> Array:
        if self.name == "constant":
            return jnp.float32(self.value)
        decayed = jnp.minimum(step, self.decay_steps)
        value = jnp.clip(SHAPES[self.name](self, decayed), 0.0, 1.0)
        return jnp.where(step >= self.decay_steps, 0.0, value).astype(jnp.float32)

    @property
    def stages(self) -> int:
        """The smallest M with rate ** M <= cutoff."""
        stages = max(1, math.floor(math.log(self.cutoff) / math.log(self.rate)))
        while self.rate**stages > self.cutoff:
            stages += 1
        return stages


def _step(given: Any) -> Array:
    """int32, at most 2**31 - 1. Raises UserError for a number of another kind, or below 0 as far as that is known."""
    if not isinstance(given, (jax.Array, np.ndarray)):
        return jnp.int32(min(at_least("step", given, 0), 2**31 - 1))
    if not jnp.issubdtype(given.dtype, jnp.integer):
        raise UserError(f"step: found {given.dtype}, allowed integers")
    return jnp.asarray(given, jnp.int32)


def _share(factor: FactorSchedule, step: Array) -> Array:
    return step.astype(jnp.float32) / factor.decay_steps


def _cosine(factor: FactorSchedule, step: Array) -> Array:
    return 0.5 * (1.0 + jnp.cos(jnp.pi * _share(factor, step)))


def _linear(factor: FactorSchedule, step: Array) -> Array:
    return 1.0 - _share(factor, step)


def _polynomial(factor: FactorSchedule, step: Array) -> Array:
    return (1.0 - _share(factor, step)) ** factor.power


def _staircase(factor: FactorSchedule, step: Array) -> Array:
    """Stage boundaries in whole steps, so that no rounding can move one."""
    starts = [math.ceil(k * factor.decay_steps / factor.stages) for k in range(1, factor.stages)]
    stage = jnp.sum(step >= jnp.asarray(starts, jnp.int32), dtype=jnp.float32)
    return jnp.float32(factor.rate) ** stage


def _constant(factor: FactorSchedule, step: Array) -> Array:
    return jnp.float32(factor.value)


ORDERS = ("together", "front", "back")
SHAPES: dict[str, Callable[[FactorSchedule, Array], Array]] = {
    "cosine": _cosine,
    "staircase": _staircase,
    "linear": _linear,
    "polynomial": _polynomial,
    "constant": _constant,
}
