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

from plq.checkpoint.inherit import Inherited, inherit, read_start
from plq.checkpoint.match import leaf_shapes
from plq.data.augment import Augmentation
from plq.data.feed import ArrayFeed, Feed, RecordFeed
from plq.data.images import size_of
from plq.data.labels import require_labels
from plq.data.order import steps_per_epoch
from plq.data.sets import SetInfo, default_splits, describe, load_split
from plq.data.source import RecordSource
from plq.data.stream import one_ahead
from plq.errors import UserError
from plq.layers.describe import Layer, expanded_layers, layer_table, variable_roles
from plq.prune import drop_ancillary
from plq.settings import Data, Settings
from plq.train.branch import branch_shares
from plq.train.calibrate import calibrated
from plq.train.factor import Factor
from plq.train.mesh import batch_sharding, join_rows, make_mesh, place, replicated, require_split, state_shardings
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
        return batch_sharding(self.mesh, self.settings.data.batch_size, self.settings.train.accumulate)

    @cached_property
    def learning_rate(self) -> Callable[[Any], Any]:
        return learning_rate(self.settings.optimizer, self.total_steps)

    @cached_property
    def task(self) -> Task:
        settings, data = self.settings, self.settings.data
        architecture = settings.architecture(len(self.info.class_names))
        expansion = settings.expansion
        network = architecture.expanded(expansion.merge, 1.0, expansion.norm)
        return Task(
            architecture=architecture,
            merge=expansion.merge,
            factor=self._factor(network),
            optimizer=make_optimizer(settings.optimizer, self.total_steps, variable_roles(network, self.image_shape)),
            augmentation=Augmentation(data.pad, data.flip and not data.crop, data.brightness, data.contrast),
            mean=data.mean,
            std=data.std,
            label_smoothing=settings.train.label_smoothing,
            seed=settings.train.seed,
            accumulate=settings.train.accumulate,
            norm=expansion.norm,
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
    def gather(self) -> Callable[[Any], Any]:
        """Compiled: arrays on the mesh -> the same, all of each on every device."""
        return jax.jit(lambda tree: tree, out_shardings=replicated(self.mesh))

    @cached_property
    def branch_shares(self) -> Callable[[State, Any], dict[str, jax.Array]]:
        """Compiled: (state, uint8 images of one batch) -> what the branch carries of each layer's output."""
        function = lambda state, images: branch_shares(self.task, self.whole(state), images)
        return jax.jit(function, in_shardings=(None, self.sharding), out_shardings=replicated(self.mesh))

    def initial_state(self) -> State:
        """The state of step 0, on the mesh: fresh or inherited weights, and scales calibrated on the first batch.

        Raises UserError if a calibrated scale is not finite.
        """
        state, inherited = self.left_behind(self._init(), 0), self.inherited
        if inherited is not None:
            weights, statistics = inherited.into(state.weights), inherited.into(state.statistics)
            state = dataclasses.replace(state, weights=weights, statistics=statistics)
        state, kernels = place(self.mesh, state), inherited is not None
        if not self._learned:
            return state

        def calibrate(state: State, images: jax.Array) -> State:
            state = calibrated(self.task, self.whole(state), images, kernels)
            return jax.lax.with_sharding_constraint(state, state_shardings(self.mesh, state))

        state = jax.jit(calibrate)(state, self.batch(0)[0])
        self._require_finite_scales(state)
        return state

    def _require_finite_scales(self, state: State) -> None:
        weights = flatten(state.weights)
        for path, scale in self.gather({path: weights[path] for path in self._learned}).items():
            if not np.isfinite(scale).all():
                found = np.asarray(scale)[~np.isfinite(scale)][0]
                cause = "what its layer gets from the weights so far overflows or is not a number"
                raise UserError(f"calibration on the first batch: {path} is {found}, allowed finite scales; {cause}")

    @cached_property
    def inherited(self) -> Inherited | None:
        """What ``model.init_from`` gives; None without it. Raises UserError if it cannot be used."""
        if not self.settings.model.init_from:
            return None
        normalization = {"mean": self.task.mean, "std": self.task.std}
        source, found = read_start(self.settings.model.init_from, self.task.architecture, normalization)
        return inherit(source, found, leaf_shapes(jax.eval_shape(self._init).variables), self._learned)

    @cached_property
    def _learned(self) -> list[str]:
        """Paths of the scales that quantizers learn."""
        roles = flatten(variable_roles(self.task.architecture.plain(), self.image_shape))
        return [path for path, role in roles.items() if role == "quantizer"]

    def _init(self) -> State:
        task = self.task
        return init_state(task.architecture, task.merge, task.optimizer, self.image_shape, task.seed, task.norm)

    def _gone(self, step: int) -> bool:
        zero_from = self.task.factor.zero_from
        return self.settings.expansion.leave and zero_from is not None and step >= zero_from

    def left_behind(self, state: Any, step: int) -> Any:
        """The state as it is at this step: without the branch from the step on at which f is 0 for good."""
        return drop_ancillary(state) if self._gone(step) else state

    def abstract_state(self, step: int) -> Any:
        """Shapes, dtypes and shardings of the state at this step."""
        state = self.left_behind(jax.eval_shape(self._init), step)
        abstract = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.tree.map(abstract, state, state_shardings(self.mesh, state))

    def fresh_tally(self) -> Tally:
        """A zero tally on the mesh."""
        return place(self.mesh, Tally.zero())

    def batches(self, start: int, stop: int) -> Generator[tuple[jax.Array, jax.Array], None, None]:
        """Images and labels of the steps from ``start`` up to ``stop``, on the mesh.

        The next batch is on its way to the devices while a step runs and its results are waited for.
        """
        with contextlib.closing(self.train.batches(start, stop)) as batches:
            yield from one_ahead(join_rows(self.sharding, batch) for batch in batches)

    def batch(self, step: int) -> tuple[jax.Array, jax.Array]:
        """Images and labels of one step, on the mesh."""
        return next(self.batches(step, step + 1))

    def test_batch(self) -> jax.Array:
        """The first images of the test split, on the mesh."""
        return join_rows(self.sharding, next(self.test.in_order())[0])

    def test_logits(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Logits [examples, classes] and labels [examples] of the whole test split, in evaluation mode."""
        return all_logits(lambda images: self.logits(state, join_rows(self.sharding, images)), self.test)

    def served_logits(self, model: Callable[[np.ndarray], Any]) -> tuple[np.ndarray, np.ndarray]:
        """As `test_logits`, of a served model; each process serves its own images."""
        return all_logits(lambda images: process_allgather(np.asarray(model(images)), tiled=True), self.test)

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
    """Logits for each image of the feed, and its labels.

    ``function``: uint8 images, this process's rows of a batch -> logits of the whole batch. What fills up the last
    batch is at its end and is cut off.
    """
    logits, labels = [], []
    for images, given, _ in feed.in_order():
        logits.append(jax.device_get(function(images)))
        labels.append(given)
    everywhere = process_allgather(np.stack(labels))  # [processes, batches, rows]
    count = len(feed)
    return np.concatenate(logits)[:count], everywhere.swapaxes(0, 1).reshape(-1)[:count]


_score = jax.jit(score)


def evaluation(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean loss and accuracy. Raises UserError for labels that are no classes."""
    require_labels(labels, logits.shape[1], "evaluation")
    return {name: float(value) for name, value in _score(logits, labels).items()}


def open_feed(data: Data, split: str, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> Feed:
    """The images of a split as the config has them, of each batch the rows of this process.

    Raises UserError for whatever is missing or does not fit.
    """
    if not data.crop:
        images = load_split(data.name, split, data.image_size, data.data_dir, data.cache_dir)
        return ArrayFeed(images, data.batch_size, seed, shard)
    if data.name == "digits":
        raise UserError(f"data.crop={data.crop}: digits are read whole; leave data.crop empty")
    source, size = RecordSource(data.name, split, data.data_dir), size_of(data.image_size)
    assert size is not None, "Data.check wants a size with a crop"
    fields = (size, data.crop, data.flip, data.threads, data.corrupt_share, shard)
    return RecordFeed(source, data.batch_size, seed, *fields)


def assemble(settings: Settings) -> Experiment:
    """Open the data and check that settings, data and devices fit. Raises UserError if they do not."""
    data, seed = settings.data, settings.train.seed
    info = describe(data.name, data.data_dir)
    mesh = make_mesh(dataclasses.asdict(settings.mesh))
    batch_sharding(mesh, data.batch_size, settings.train.accumulate)
    splits = zip((data.train_split, data.test_split), default_splits(data.name), strict=True)
    shard = (jax.process_index(), jax.process_count())
    feeds = [open_feed(data, given or usual, seed, shard) for given, usual in splits]
    experiment = Experiment(settings, info, *feeds)
    _check_images(experiment)
    steps_per_epoch(len(experiment.train), data.batch_size)
    network = settings.architecture(len(info.class_names)).plain()
    layer_table(network, experiment.image_shape)  # refuses images that the network cannot take
    if mesh.shape["fsdp"] > 1:
        require_split(mesh, experiment.abstract_state(0).weights)
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
