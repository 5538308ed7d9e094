"""One training step and one evaluation: pure functions of state and batch."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from plq.data.augment import Augmentation, augment, normalize
from plq.models.registry import Architecture
from plq.train.factor import Factor
from plq.train.loss import correct, cross_entropy
from plq.train.state import State, Tally


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything a step depends on besides state and batch; all of it fixed for a run."""

    architecture: Architecture
    merge: str
    norm: bool
    factor: Factor
    optimizer: optax.GradientTransformation
    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float
    seed: int | Array

    def network(self, state: State) -> nn.Module:
        """The expanded network at f of the state's step, or the plain one once the branch is gone."""
        if not state.expanded:
            return self.architecture.plain()
        return self.architecture.expanded(self.merge, self.factor.by_layer(state.step), self.norm)


def train_step(task: Task, state: State, images: Array, labels: Array) -> State:
    """One update on a batch: uint8 images [batch, height, width, channels], int labels [batch].

    All randomness is a function of the seed and the step. The factor is traced: jitted, this compiles once for
    the expanded state and once for the pruned one.
    """
    key = jax.random.fold_in(jax.random.key(task.seed), state.step)
    augment_key, dropout_key, gradient_key = jax.random.split(key, 3)
    x = normalize(augment(augment_key, images, task.augmentation), task.mean, task.std)
    network = task.network(state)

    def loss_of(weights):
        logits, statistics = network.apply(
            {**weights, **state.statistics},
            x,
            train=True,
            rngs={"dropout": dropout_key, "gradient": gradient_key},
            mutable=list(state.statistics),
        )
        return cross_entropy(logits, labels, task.label_smoothing).mean(), (logits, statistics)

    (loss, (logits, statistics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.weights)
    updates, moments = task.optimizer.update(gradients, state.moments, state.weights)
    return State(
        step=state.step + 1,
        weights=optax.apply_updates(state.weights, updates),
        statistics={**state.statistics, **statistics},
        moments=moments,
        tally=_counted(state, loss, correct(logits, labels), optax.tree.norm(gradients)),
    )


def _counted(state: State, loss: Array, hits: Array, gradient_norm: Array) -> Tally:
    tally, examples = state.tally, hits.size
    broken = (tally.broken_step < 0) & ~jnp.isfinite(loss + gradient_norm)
    return Tally(
        loss=tally.loss + loss * examples,
        correct=tally.correct + hits.sum(),
        examples=tally.examples + examples,
        broken_step=jnp.where(broken, state.step, tally.broken_step),
    )


def logits_of(task: Task, state: State, images: Array) -> Array:
    """Logits [batch, classes] of uint8 images, in evaluation mode."""
    x = normalize(images, task.mean, task.std)
    logits: Any = task.network(state).apply(state.variables, x, train=False)
    return logits


def score(logits: Array, labels: Array) -> dict[str, Array]:
    """Mean loss in nats and accuracy (0 to 1) over all examples: logits [examples, classes], labels [examples]."""
    return {"loss": cross_entropy(logits, labels).mean(), "accuracy": correct(logits, labels).mean()}
