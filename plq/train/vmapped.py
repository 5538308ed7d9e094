"""Runs side by side in one program: what differs between them, seed and branch, is traced instead of fixed."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array

from plq.train.branch import branch_shares
from plq.train.factor import FactorSchedule
from plq.train.state import State
from plq.train.step import TrainSpec, logits_of, train_step


@dataclasses.dataclass(frozen=True)
class ScaledFactor(FactorSchedule):
    """f times ``multiplier``, which may be traced: 1 is EXP-Net, 0 the plain network with an idle branch."""

    multiplier: Any = 1.0

    def by_layer(self, step: Array | int) -> Any:
        return jax.tree.map(lambda f: self.multiplier * f, super().by_layer(step))


@dataclasses.dataclass(frozen=True)
class VmappedRuns:
    """k runs of one task: every array has a leading axis of length k, in the order of ``seeds``.

    seeds: int32 [k]. multipliers: float32 [k], 1 for a run with its branch, 0 for one without; both share one program,
    because low - 0 * ancillary = low to the last bit and the branch gets no gradient.
    """

    task: TrainSpec
    seeds: np.ndarray
    multipliers: np.ndarray

    def step(self, states: State, images: Array, labels: Array) -> State:
        """One update of each run on its own batch: images [k, batch, height, width, channels], labels [k, batch]."""
        one = lambda seed, multiplier, *given: train_step(self._task(seed, multiplier), *given)
        return jax.vmap(one)(self.seeds, self.multipliers, states, images, labels)

    def logits(self, states: State, images: Array) -> Array:
        """Logits [k, batch, classes] of the same images, uint8 [batch, height, width, channels], for each run."""
        one = lambda seed, multiplier, state: logits_of(self._task(seed, multiplier), state, images)
        return jax.vmap(one)(self.seeds, self.multipliers, states)

    def branch_shares(self, states: State, images: Array) -> dict[str, Array]:
        """`plq.train.branch.branch_shares` of each run, [k] by layer."""
        one = lambda seed, multiplier, state: branch_shares(self._task(seed, multiplier), state, images)
        return jax.vmap(one)(self.seeds, self.multipliers, states)

    def _task(self, seed: Array, multiplier: Array) -> TrainSpec:
        fields = {field.name: getattr(self.task.factor, field.name) for field in dataclasses.fields(FactorSchedule)}
        factor = ScaledFactor(**fields, multiplier=multiplier)
        return dataclasses.replace(self.task, seed=seed, factor=factor)
