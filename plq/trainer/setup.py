"""From settings to the things a run is made of: data, network, step, mesh."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from plq.checkpoint.match import leaf_shapes
from plq.checkpoint.prune import prune
from plq.checkpoint.warm_start import WarmStart, read_start, warm_start_from
from plq.config.schema import Config
from plq.data.loader import DataLoader
from plq.data.order import steps_per_epoch
from plq.data.prefetch import prefetch_to_device
from plq.data.sets import SetInfo, default_splits
from plq.errors import UserError
from plq.layers.describe import Layer, layer_table, variable_roles
from plq.layers.variables import flatten
from plq.models.trainable import Trainable
from plq.train.branch import branch_shares
from plq.train.factor import FactorSchedule
from plq.train.mesh import (
    batch_sharding,
    make_global_batch,
    make_mesh,
    place,
    replicated,
    require_split,
    state_shardings,
)
from plq.train.optimizer import learning_rate
from plq.train.state import Metrics, State, init_state
from plq.train.step import TrainSpec, logits_of, train_step
from plq.trainer.evaluation import all_logits, evaluation, open_loader, set_info
from plq.trainer.spec import factor_over, train_spec
from plq.trainer.start import initial_state


@dataclasses.dataclass(frozen=True)
class Setup:
    """One run, ready to go: all of it is a function of the settings and the data on disk."""

    config: Config
    info: SetInfo
    train: DataLoader
    test: DataLoader

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, channels] of what the network sees."""
        return self.train.image_shape

    @cached_property
    def epoch_steps(self) -> int:
        return steps_per_epoch(len(self.train), self.config.data.batch_size)

    @cached_property
    def total_steps(self) -> int:
        return max(1, round(self.config.train.epochs * self.epoch_steps))

    @cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(dataclasses.asdict(self.config.mesh))

    @cached_property
    def sharding(self) -> jax.sharding.NamedSharding:
        """Of a batch."""
        return batch_sharding(self.mesh, self.config.data.batch_size, self.config.train.accumulate)

    @cached_property
    def learning_rate(self) -> Callable[[Any], Any]:
        return learning_rate(self.config.optimizer, self.total_steps)

    @cached_property
    def architecture(self) -> Trainable:
        """The network. Raises UserError for one that does not fit the images, or is not as it should be."""
        return self.config.architecture(len(self.info.class_names), self.image_shape)

    @property
    def expanded(self) -> nn.Module:
        """The network with its branches."""
        return self.architecture.expanded(self.config.expansion.merge, 1.0, self.config.expansion.norm)

    @cached_property
    def task(self) -> TrainSpec:
        return train_spec(self)

    @cached_property
    def factor(self) -> FactorSchedule:
        return factor_over(self)

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the network as it starts: with its branches, unless f is 0 from the beginning."""
        return layer_table(self.architecture.plain() if self._gone(0) else self.expanded, self.image_shape)

    @cached_property
    def step(self) -> Callable[[State, jax.Array, jax.Array], State]:
        """The compiled training step: (state, images, labels) -> state. Donates the given state."""

        def step(state: State, images: jax.Array, labels: jax.Array) -> State:
            state = train_step(self.task, state, images, labels, self.whole)
            return jax.lax.with_sharding_constraint(state, state_shardings(self.mesh, state))

        return jax.jit(step, in_shardings=(None, self.sharding, self.sharding), donate_argnums=(0,))

    @cached_property
    def logits(self) -> Callable[[State, Any], jax.Array]:
        """Compiled: (state, uint8 images of one batch) -> logits, in evaluation mode."""
        function = lambda state, images: logits_of(self.task, self.whole(state), images)
        return jax.jit(function, in_shardings=(None, self.sharding), out_shardings=replicated(self.mesh))

    def whole(self, tree: Any) -> Any:
        """Inside a compiled function: the tree with all of every leaf on every device."""
        return jax.lax.with_sharding_constraint(tree, replicated(self.mesh)) if self.mesh.shape["fsdp"] > 1 else tree

    @cached_property
    def replicate(self) -> Callable[[Any], Any]:
        """Compiled: arrays on the mesh -> the same, all of each on every device."""
        return jax.jit(lambda tree: tree, out_shardings=replicated(self.mesh))

    @cached_property
    def branch_shares(self) -> Callable[[State, Any], dict[str, jax.Array]]:
        """Compiled: (state, uint8 images of one batch) -> what the branch carries of each layer's output."""
        function = lambda state, images: branch_shares(self.task, self.whole(state), images)
        return jax.jit(function, in_shardings=(None, self.sharding), out_shardings=replicated(self.mesh))

    def initial_state(self) -> State:
        """The state of step 0, on the mesh (`plq.trainer.start`)."""
        return initial_state(self)

    @cached_property
    def warm_start(self) -> WarmStart | None:
        """What ``model.init_from`` gives; None without it. Raises UserError if it cannot be used."""
        if not self.config.model.init_from:
            return None
        normalization = {"mean": self.config.data.mean, "std": self.config.data.std}
        source, found = read_start(self.config.model.init_from, self.architecture, normalization)
        return warm_start_from(source, found, leaf_shapes(jax.eval_shape(self.init).variables), self.learned)

    @cached_property
    def learned(self) -> list[str]:
        """Paths of the scales that quantizers learn."""
        roles = flatten(variable_roles(self.architecture.plain(), self.image_shape))
        return [path for path, role in roles.items() if role == "quantizer"]

    def init(self) -> State:
        """A fresh state with its branch, on one device."""
        task = self.task
        return init_state(task.architecture, task.merge, task.optimizer, self.image_shape, task.seed, task.norm)

    def _gone(self, step: int) -> bool:
        end_step = self.factor.end_step
        return self.config.expansion.leave and end_step is not None and step >= end_step

    def pruned(self, state: Any, step: int) -> Any:
        """The state as it is at this step: without the branch from the step on at which f is 0 for good."""
        return prune(state) if self._gone(step) else state

    def abstract_state(self, step: int) -> Any:
        """Shapes, dtypes and shardings of the state at this step."""
        state = self.pruned(jax.eval_shape(self.init), step)
        abstract = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.tree.map(abstract, state, state_shardings(self.mesh, state))

    def fresh_tally(self) -> Metrics:
        """A zero tally on the mesh."""
        return place(self.mesh, Metrics.zero())

    def batches(self, start: int, stop: int) -> Generator[tuple[jax.Array, jax.Array], None, None]:
        """Images and labels of the steps from ``start`` up to ``stop``, on the mesh.

        The next batch is on its way to the devices while a step runs and its results are waited for.
        """
        with contextlib.closing(self.train.batches(start, stop)) as batches:
            yield from prefetch_to_device(make_global_batch(self.sharding, batch) for batch in batches)

    def batch(self, step: int) -> tuple[jax.Array, jax.Array]:
        """Images and labels of one step, on the mesh."""
        return next(self.batches(step, step + 1))

    def test_batch(self) -> jax.Array:
        """The first images of the test split, on the mesh."""
        return make_global_batch(self.sharding, next(self.test.eval_batches())[0])

    def test_logits(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Logits [examples, classes] and labels [examples] of the whole test split, in evaluation mode."""
        return all_logits(lambda images: self.logits(state, make_global_batch(self.sharding, images)), self.test)

    def served_logits(self, model: Callable[[np.ndarray], Any]) -> tuple[np.ndarray, np.ndarray]:
        """As `test_logits`, of a served model; each process serves its own images."""
        return all_logits(lambda images: process_allgather(np.asarray(model(images)), tiled=True), self.test)

    def evaluate(self, state: State) -> dict[str, float]:
        """Mean loss and accuracy over the whole test split."""
        return evaluation(*self.test_logits(state))

    def description(self) -> dict[str, Any]:
        """What a served model needs to know, and where it comes from."""
        return {
            "architecture": self.architecture.to_json(),
            "image_shape": list(self.image_shape),
            "mean": list(self.config.data.mean),
            "std": list(self.config.data.std),
            "class_names": list(self.info.class_names),
            "fit": "center" if self.config.data.crop else "square",
            "training": {"config": self.config.to_json()},
        }


def assemble(config: Config) -> Setup:
    """Open the data and check that settings, data and devices fit. Raises UserError if they do not."""
    data, seed = config.data, config.train.seed
    info = set_info(data)
    mesh = make_mesh(dataclasses.asdict(config.mesh))
    batch_sharding(mesh, data.batch_size, config.train.accumulate)
    splits = zip((data.train_split, data.test_split), default_splits(data.name), strict=True)
    shard = (jax.process_index(), jax.process_count())
    feeds = [open_loader(data, given or usual, seed, shard) for given, usual in splits]
    setup = Setup(config, info, *feeds)
    _check_images(setup)
    steps_per_epoch(len(setup.train), data.batch_size)
    layer_table(setup.architecture.plain(), setup.image_shape)  # refuses images that the network cannot take
    _ = setup.factor
    if mesh.shape["fsdp"] > 1:
        require_split(mesh, setup.abstract_state(0).weights)
    return setup


def _check_images(setup: Setup) -> None:
    data, shape, other = setup.config.data, setup.image_shape, setup.test.image_shape
    if other != shape:
        found = f"training images {shape}, test images {other}"
        raise UserError(f"data.name={data.name}: {found}; set data.image_size to bring them to one size")
    for field in ("mean", "std"):
        numbers = getattr(data, field)
        if len(numbers) not in (1, shape[2]):
            raise UserError(f"data.{field}={numbers}: {len(numbers)} numbers for images of {shape[2]} channels")
