"""One training step and one evaluation: pure functions of state and batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from plq.data.augment import Augmentation, augment, normalize
from plq.models.trainable import Trainable
from plq.train.factor import FactorSchedule
from plq.train.loss import correct, cross_entropy
from plq.train.state import Metrics, State, Tree

Sums = tuple[Tree, Array, Array]  # gradients, loss, hits


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """Everything a step depends on besides state and batch; all of it fixed for a run."""

    architecture: Trainable
    merge: str
    factor: FactorSchedule
    optimizer: optax.GradientTransformation
    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float
    seed: int | Array
    accumulate: int = 1
    norm: bool = True

    def network(self, state: State) -> nn.Module:
        """The expanded network at f of the state's step, or the plain one once the branch is gone."""
        if not state.expanded:
            return self.architecture.plain()
        return self.architecture.expanded(self.merge, self.factor.by_layer(state.step), self.norm)


def train_step(
    task: TrainSpec, state: State, images: Array, labels: Array, whole: Callable[[Tree], Tree] = lambda weights: weights
) -> State:
    """One update on a batch: uint8 images [batch, height, width, channels], int labels [batch].

    All randomness is a function of the seed and the step. The factor is traced: jitted, this compiles once for
    the expanded state and once for the pruned one. ``whole`` gathers weights that are split over devices.
    """
    key = jax.random.fold_in(jax.random.key(task.seed), state.step)
    augment_key, dropout_key, gradient_key = jax.random.split(key, 3)
    other_key = jax.random.fold_in(key, 3)  # of streams of other names, which Flax takes from "params"
    x = normalize(augment(augment_key, images, task.augmentation), task.mean, task.std)
    network, weights = task.network(state), whole(state.weights)

    def part(statistics: Tree, x: Array, labels: Array, keys: dict[str, Array]) -> tuple[Sums, Tree]:
        def loss_of(weights):
            logits, changed = network.apply(
                {**weights, **statistics}, x, train=True, rngs=keys, mutable=list(statistics)
            )
            return cross_entropy(logits, labels, task.label_smoothing).mean(), (logits, changed)

        (loss, (logits, changed)), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights)
        return (gradients, loss, correct(logits, labels).sum()), {**statistics, **changed}

    over = part if task.accumulate == 1 else _in_parts(part, task.accumulate, weights)
    keys = {"dropout": dropout_key, "gradient": gradient_key, "params": other_key}
    (gradients, loss, hits), statistics = over(state.statistics, x, labels, keys)
    updates, moments = task.optimizer.update(gradients, state.moments, state.weights)
    return State(
        step=state.step + 1,
        weights=optax.apply_updates(state.weights, updates),
        statistics=statistics,
        moments=moments,
        tally=_counted(state, loss, hits, labels.size, optax.tree.norm(gradients)),
    )


def _in_parts(part: Callable[..., tuple[Sums, Tree]], count: int, weights: Tree) -> Callable[..., tuple[Sums, Tree]]:
    """`part` over ``count`` parts of a batch in turn: mean gradient and loss, all hits, statistics handed on.

    Part i holds the examples i, i + count, ...: the same ones whatever the number of devices, and in each device's
    share as many of one part as of another. Batch norm normalizes by the statistics of a part; in all else the
    gradient is that of the whole batch.
    """

    def over(statistics: Tree, x: Array, labels: Array, keys: dict[str, Array]) -> tuple[Sums, Tree]:
        def add(carry, given):
            sums, statistics = carry
            index, x, labels = given
            own = {name: jax.random.fold_in(key, index) for name, key in keys.items()}
            more, statistics = part(statistics, x, labels, own)
            return (jax.tree.map(jnp.add, sums, more), statistics), None

        strided = lambda rows: jnp.moveaxis(rows.reshape(-1, count, *rows.shape[1:]), 1, 0)
        nothing = (jax.tree.map(jnp.zeros_like, weights), jnp.float32(0), jnp.float32(0))
        parts = (jnp.arange(count, dtype=jnp.int32), strided(x), strided(labels))
        ((gradients, loss, hits), statistics), _ = jax.lax.scan(add, (nothing, statistics), parts)
        return (jax.tree.map(lambda total: total / count, gradients), loss / count, hits), statistics

    return over


def _counted(state: State, loss: Array, hits: Array, examples: int, gradient_norm: Array) -> Metrics:
    metrics = state.tally
    broken = (metrics.broken_step < 0) & ~jnp.isfinite(loss + gradient_norm)
    return Metrics(
        loss=metrics.loss + loss * examples,
        correct=metrics.correct + hits,
        examples=metrics.examples + examples,
        broken_step=jnp.where(broken, state.step, metrics.broken_step),
    )


def logits_of(task: TrainSpec, state: State, images: Array) -> Array:
    """Logits [batch, classes] of uint8 images, in evaluation mode."""
    x = normalize(images, task.mean, task.std)
    logits: Any = task.network(state).apply(state.variables, x, train=False)
    return logits


def score(logits: Array, labels: Array) -> dict[str, Array]:
    """Mean loss in nats and accuracy (0 to 1) over all examples: logits [examples, classes], labels [examples]."""
    return {"loss": cross_entropy(logits, labels).mean(), "accuracy": correct(logits, labels).mean()}
