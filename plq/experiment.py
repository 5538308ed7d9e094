"""From settings to the things a run is made of: data, network, step, mesh."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import numpy as np

from plq.config import Settings
from plq.data.augment import Augmentation
from plq.data.order import batch_indices, steps_per_epoch
from plq.data.sets import SetInfo, Split, default_splits, describe, load_split
from plq.data.stream import eval_batches
from plq.errors import UserError
from plq.layers.describe import variable_roles
from plq.prune import drop_ancillary
from plq.train.mesh import batch_sharding, make_mesh, replicated
from plq.train.optimizer import learning_rate, make_optimizer
from plq.train.state import State, init_state
from plq.train.step import Task, eval_step, train_step


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to go: all of it is a function of the settings and the data on disk."""

    settings: Settings
    info: SetInfo
    train: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @cached_property
    def epoch_steps(self) -> int:
        return steps_per_epoch(len(self.train.labels), self.settings.data.batch_size)

    @cached_property
    def total_steps(self) -> int:
        return max(1, round(self.settings.train.epochs * self.epoch_steps))

    @cached_property
    def mesh(self):
        return make_mesh(dataclasses.asdict(self.settings.mesh))

    @cached_property
    def sharding(self):
        """Of a training batch."""
        return batch_sharding(self.mesh, self.settings.data.batch_size)

    @cached_property
    def learning_rate(self):
        return learning_rate(self.settings.optimizer, self.total_steps)

    @cached_property
    def task(self) -> Task:
        settings, data = self.settings, self.settings.data
        architecture = settings.architecture(len(self.info.class_names))
        roles = variable_roles(architecture.expanded(settings.expansion.merge, 1.0), self.image_shape)
        return Task(
            architecture=architecture,
            merge=settings.expansion.merge,
            factor=settings.factor.over(self.total_steps),
            optimizer=make_optimizer(settings.optimizer, self.total_steps, roles),
            augmentation=Augmentation(data.brightness, data.contrast[:2], data.pad, data.flip),  # type: ignore[arg-type]
            mean=data.mean,
            std=data.std,
            label_smoothing=settings.train.label_smoothing,
            seed=settings.train.seed,
        )

    @cached_property
    def step(self) -> Callable[..., State]:
        """The compiled training step: (state, images, labels) -> state. The given state is used up."""
        everywhere = replicated(self.mesh)
        return jax.jit(
            lambda state, images, labels: train_step(self.task, state, images, labels),
            in_shardings=(everywhere, self.sharding, self.sharding),
            out_shardings=everywhere,
            donate_argnums=(0,),
        )

    @cached_property
    def _eval_step(self) -> Callable[..., dict[str, Any]]:
        everywhere, batch = replicated(self.mesh), self.sharding
        evaluate = lambda state, *batch: eval_step(self.task, state, *batch)
        return jax.jit(evaluate, in_shardings=(everywhere, batch, batch, batch), out_shardings=everywhere)

    def initial_state(self) -> State:
        """The state of step 0, on the mesh."""
        task = self.task
        state = init_state(task.architecture, task.merge, task.optimizer, self.image_shape, task.seed)
        return jax.device_put(self.left_behind(state, 0), replicated(self.mesh))

    def left_behind(self, state: Any, step: int) -> Any:
        """The state as it is at this step: without the branch from the step on at which f is 0 for good."""
        zero_from = self.task.factor.zero_from
        gone = self.settings.expansion.leave and zero_from is not None and step >= zero_from
        return drop_ancillary(state) if gone else state

    def abstract_state(self, step: int) -> Any:
        """Shapes, dtypes and shardings of the state at this step."""
        sharding = replicated(self.mesh)
        task = self.task
        init = lambda: init_state(task.architecture, task.merge, task.optimizer, self.image_shape, task.seed)
        shapes = self.left_behind(jax.eval_shape(init), step)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)

    def batch(self, step: int) -> tuple[jax.Array, jax.Array]:
        """Images and labels of this step, on the mesh."""
        chosen = batch_indices(self.settings.train.seed, step, len(self.train.labels), self.settings.data.batch_size)
        return jax.device_put((self.train.images[chosen], self.train.labels[chosen]), self.sharding)

    def evaluate(self, state: State) -> dict[str, float]:
        """Mean loss and accuracy over the whole test split, each example counted once."""
        sums = {"loss": 0.0, "correct": 0.0, "examples": 0.0}
        for batch in eval_batches(self.test, self.settings.data.batch_size):
            counted = jax.device_get(self._eval_step(state, *jax.device_put(batch, self.sharding)))
            sums = {name: sums[name] + float(counted[name]) for name in sums}
        return {"loss": sums["loss"] / sums["examples"], "accuracy": sums["correct"] / sums["examples"]}

    def description(self) -> dict[str, Any]:
        """What a served model needs to know, and where it comes from."""
        return {
            "architecture": self.task.architecture.to_json(),
            "image_shape": list(self.image_shape),
            "mean": list(self.settings.data.mean),
            "std": list(self.settings.data.std),
            "class_names": list(self.info.class_names),
            "training": {"config": self.settings.to_json()},
        }


def assemble(settings: Settings) -> Experiment:
    """Load the data and check that settings and data fit. Raises UserError if they do not."""
    data = settings.data
    names = default_splits(data.name)
    arguments = {"image_size": data.image_size, "data_dir": data.data_dir, "cache_dir": data.cache_dir}
    train, test = (load_split(data.name, given or usual, **arguments)
                   for given, usual in zip((data.train_split, data.test_split), names, strict=True))
    experiment = Experiment(settings, describe(data.name, data.data_dir), train, test)
    channels = experiment.image_shape[2]
    for field in ("mean", "std"):
        if len(getattr(data, field)) not in (1, channels):
            found = f"{len(getattr(data, field))} numbers for images of {channels} channels"
            raise UserError(f"data.{field}={getattr(data, field)}: found {found}")
    if test.images.shape[1:] != train.images.shape[1:]:
        found = f"{np.shape(train.images)[1:]} and {np.shape(test.images)[1:]}"
        raise UserError(f"data.name={data.name}: training and test images differ in shape: {found}; set data.image_size")
    experiment.sharding  # noqa: B018  (refuses a batch that does not divide, before anything is computed)
    experiment.epoch_steps  # noqa: B018
    return experiment
