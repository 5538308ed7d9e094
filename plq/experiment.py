"""From settings to the things a run is made of: data, network, step, mesh."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plq.checkpoint.inherit import Inherited, inherit, read_float_model
from plq.data.augment import Augmentation
from plq.data.feed import ArrayFeed, Feed, RecordFeed
from plq.data.order import steps_per_epoch
from plq.data.sets import SetInfo, default_splits, describe, load_split
from plq.data.source import RecordSource
from plq.errors import UserError
from plq.layers.describe import Layer, expanded_layers, layer_table, quantized_layers, variable_roles
from plq.prune import drop_ancillary
from plq.settings import Data, Settings
from plq.train.branch import branch_shares
from plq.train.calibrate import calibrated
from plq.train.factor import Factor
from plq.train.mesh import batch_sharding, make_mesh, replicated
from plq.train.optimizer import learning_rate, make_optimizer
from plq.train.state import State, Tally, init_state
from plq.train.step import Task, logits_of, score, train_step
from plq.variables import flatten


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, ready to go: all of it is a function of the settings and the data on disk."""

    settings: Settings
    info: SetInfo
    train: Feed
    test: Feed

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, channels] of what the network sees."""
        return self.train.image_shape

    @cached_property
    def epoch_steps(self) -> int:
        return steps_per_epoch(len(self.train), self.settings.data.batch_size)

    @cached_property
    def total_steps(self) -> int:
        return max(1, round(self.settings.train.epochs * self.epoch_steps))

    @cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(dataclasses.asdict(self.settings.mesh))

    @cached_property
    def sharding(self) -> jax.sharding.NamedSharding:
        """Of a batch."""
        return batch_sharding(self.mesh, self.settings.data.batch_size)

    @cached_property
    def learning_rate(self) -> Callable[[Any], Any]:
        return learning_rate(self.settings.optimizer, self.total_steps)

    @cached_property
    def task(self) -> Task:
        settings, data = self.settings, self.settings.data
        architecture = settings.architecture(len(self.info.class_names))
        expansion, total = settings.expansion, self.total_steps
        network = architecture.expanded(expansion.merge, 1.0, expansion.norm)
        return Task(
            architecture=architecture,
            merge=expansion.merge,
            norm=expansion.norm,
            factor=self._factor(network),
            optimizer=make_optimizer(settings.optimizer, total, variable_roles(network, self.image_shape)),
            augmentation=Augmentation(data.pad, data.flip and not data.crop, data.brightness, data.contrast),
            mean=data.mean,
            std=data.std,
            label_smoothing=settings.train.label_smoothing,
            seed=settings.train.seed,
        )

    def _factor(self, network: nn.Module) -> Factor:
        """f over this run; it knows the expanded layers of the network where each has its own."""
        factor = self.settings.factor.over(self.total_steps)
        if factor.order == "together":
            return factor
        return dataclasses.replace(factor, layers=expanded_layers(network, self.image_shape))

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the network as it starts: with its branches, unless f is 0 from the beginning."""
        architecture = self.task.architecture
        starts_plain = self._gone(0)
        network = architecture.plain() if starts_plain else architecture.expanded(self.task.merge, 1.0, self.task.norm)
        return layer_table(network, self.image_shape)

    @cached_property
    def step(self) -> Callable[[State, jax.Array, jax.Array], State]:
        """The compiled training step: (state, images, labels) -> state. The given state is used up."""
        everywhere = replicated(self.mesh)
        return jax.jit(
            lambda state, images, labels: train_step(self.task, state, images, labels),
            in_shardings=(everywhere, self.sharding, self.sharding),
            out_shardings=everywhere,
            donate_argnums=(0,),
        )

    @cached_property
    def logits(self) -> Callable[[State, Any], jax.Array]:
        """Compiled: (state, uint8 images of one batch) -> logits, in evaluation mode."""
        everywhere = replicated(self.mesh)
        function = lambda state, images: logits_of(self.task, state, images)
        return jax.jit(function, in_shardings=(everywhere, self.sharding), out_shardings=everywhere)

    @cached_property
    def branch_shares(self) -> Callable[[State, Any], dict[str, jax.Array]]:
        """Compiled: (state, uint8 images of one batch) -> what the branch carries of each layer's output."""
        everywhere = replicated(self.mesh)
        function = lambda state, images: branch_shares(self.task, state, images)
        return jax.jit(function, in_shardings=(everywhere, self.sharding), out_shardings=everywhere)

    def initial_state(self) -> State:
        """The state of step 0, on the mesh: fresh or inherited weights, and scales calibrated on the first batch."""
        state = self.left_behind(self._init(), 0)
        if self.inherited is not None:
            kept = self.inherited.variables
            weights = {**state.weights, "params": kept["params"]}
            statistics = {**state.statistics, "batch_stats": kept["batch_stats"]}
            state = dataclasses.replace(state, weights=weights, statistics=statistics)
        everywhere = replicated(self.mesh)
        state = jax.device_put(state, everywhere)
        if not self.task.architecture.precision.learns_activations():
            return state
        calibrate = jax.jit(lambda state, images: calibrated(self.task, state, images), out_shardings=everywhere)
        return calibrate(state, self.batch(0)[0])

    @cached_property
    def inherited(self) -> Inherited | None:
        """What ``model.init_from`` gives; None without it."""
        path = self.settings.model.init_from
        if not path:
            return None
        architecture, state = self.task.architecture, self._init()
        plain = architecture.plain()
        roles = flatten({"params": variable_roles(plain, self.image_shape)["params"]})
        learned = {leaf for leaf, role in roles.items() if role == "quantizer"}
        found = read_float_model(Path(path), architecture)
        return inherit(path, state.variables, found, quantized_layers(plain, self.image_shape), learned)

    def _init(self) -> State:
        task = self.task
        return init_state(task.architecture, task.merge, task.norm, task.optimizer, self.image_shape, task.seed)

    def _gone(self, step: int) -> bool:
        zero_from = self.task.factor.zero_from
        return self.settings.expansion.leave and zero_from is not None and step >= zero_from

    def left_behind(self, state: Any, step: int) -> Any:
        """The state as it is at this step: without the branch from the step on at which f is 0 for good."""
        return drop_ancillary(state) if self._gone(step) else state

    def abstract_state(self, step: int) -> Any:
        """Shapes, dtypes and shardings of the state at this step."""
        sharding = replicated(self.mesh)
        abstract = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.tree.map(abstract, self.left_behind(jax.eval_shape(self._init), step))

    def fresh_tally(self) -> Tally:
        """A zero tally on the mesh."""
        return jax.device_put(Tally.zero(), replicated(self.mesh))

    def batches(self, start: int, stop: int) -> Generator[tuple[jax.Array, jax.Array], None, None]:
        """Images and labels of the steps from ``start`` up to ``stop``, on the mesh."""
        with contextlib.closing(self.train.batches(start, stop)) as batches:
            for batch in batches:
                yield jax.device_put(batch, self.sharding)

    def batch(self, step: int) -> tuple[jax.Array, jax.Array]:
        """Images and labels of one step, on the mesh."""
        return next(self.batches(step, step + 1))

    def test_logits(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Logits [examples, classes] and labels [examples] of the whole test split, in evaluation mode."""
        return all_logits(lambda images: self.logits(state, jax.device_put(images, self.sharding)), self.test)

    def evaluate(self, state: State) -> dict[str, float]:
        """Mean loss and accuracy over the whole test split."""
        return evaluation(*self.test_logits(state))

    def description(self) -> dict[str, Any]:
        """What a served model needs to know, and where it comes from."""
        return {
            "architecture": self.task.architecture.to_json(),
            "image_shape": list(self.image_shape),
            "mean": list(self.settings.data.mean),
            "std": list(self.settings.data.std),
            "class_names": list(self.info.class_names),
            "fit": "center" if self.settings.data.crop else "square",
            "training": {"config": self.settings.to_json()},
        }


def all_logits(function: Callable[[np.ndarray], Any], feed: Feed) -> tuple[np.ndarray, np.ndarray]:
    """What ``function`` (uint8 images of one batch -> logits) gives for each image of the feed, and its labels."""
    logits, labels = [], []
    for images, given, mask in feed.in_order():
        real = mask > 0
        logits.append(jax.device_get(function(images))[real])
        labels.append(given[real])
    return np.concatenate(logits), np.concatenate(labels)


_score = jax.jit(score)


def evaluation(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean loss and accuracy."""
    return {name: float(value) for name, value in _score(logits, labels).items()}


def open_feed(data: Data, split: str, seed: int = 0) -> Feed:
    """The images of a split as the config has them. Raises UserError for whatever is missing or does not fit."""
    if not data.crop:
        images = load_split(data.name, split, data.image_size, data.data_dir, data.cache_dir)
        return ArrayFeed(images, data.batch_size, seed)
    if data.name == "digits":
        raise UserError(f"data.crop={data.crop}: digits are read whole; leave data.crop empty")
    source = RecordSource(data.name, split, data.data_dir)
    fields = (data.image_size, data.crop, data.flip, data.threads, data.corrupt_share)
    return RecordFeed(source, data.batch_size, seed, *fields)


def assemble(settings: Settings) -> Experiment:
    """Open the data and check that settings and data fit. Raises UserError if they do not."""
    data, seed = settings.data, settings.train.seed
    info = describe(data.name, data.data_dir)
    splits = zip((data.train_split, data.test_split), default_splits(data.name), strict=True)
    experiment = Experiment(settings, info, *(open_feed(data, given or usual, seed) for given, usual in splits))
    _check_images(experiment)
    steps_per_epoch(len(experiment.train), data.batch_size)
    batch_sharding(experiment.mesh, data.batch_size)
    network = settings.architecture(len(info.class_names)).plain()
    layer_table(network, experiment.image_shape)  # refuses images that the network cannot take
    return experiment


def _check_images(experiment: Experiment) -> None:
    data, shape, other = experiment.settings.data, experiment.image_shape, experiment.test.image_shape
    if other != shape:
        found = f"training images {shape}, test images {other}"
        raise UserError(f"data.name={data.name}: {found}; set data.image_size to bring them to one size")
    for field in ("mean", "std"):
        numbers = getattr(data, field)
        if len(numbers) not in (1, shape[2]):
            raise UserError(f"data.{field}={numbers}: {len(numbers)} numbers for images of {shape[2]} channels")
