"""Plain, EXP-Net and all seeds of one point as one program: they differ in seed and f alone.

The training images lie on the device and are augmented there; each lane has the data order of its seed. A lane's
folder gets what a run of its own would write, but for checkpoints and times: those are of all lanes together.
"""

import dataclasses
import itertools
import shutil
import sys
import time
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.checkpoint.model_file import write_model
from plq.checkpoint.store import Store
from plq.compare.plan import Plan
from plq.compare.runs import Stopped, Training
from plq.compare.vmapped_log import VmappedLog
from plq.config.schema import Config, MeshConfig
from plq.data.loader import ArrayLoader, DataLoader
from plq.data.order import batch_indices
from plq.distributed.preemption import caught_signals
from plq.errors import UserError
from plq.layers.variables import kept
from plq.train.mesh import replicated
from plq.train.state import Metrics, State
from plq.train.vmapped import VmappedRuns
from plq.trainer.evaluation import evaluation
from plq.trainer.setup import Setup, assemble

FOLDER = "together"


@dataclasses.dataclass(frozen=True)
class Group:
    """Trainings that become one program, which has these settings but for seed and f."""

    config: Config
    trainings: tuple[Training, ...]

    @property
    def name(self) -> str:
        """Another one for other lanes, whose states would not fit."""
        folders = "\n".join(training.cell.folder for training in self.trainings)
        return f"{zlib.crc32(folders.encode()):08x}"


def groups_of(plan: Plan, trainings: Sequence[Training], most: int = 0) -> list[Group]:
    """What is not done, the plain network together with EXP-Net of the same point; at most so many lanes, 0: any.

    What began as a run of its own is left to go on as one. Raises UserError for images that are not in memory.
    """
    begun = lambda training: (training.folder / "checkpoints").exists()
    waiting = {training.cell.folder: training for training in trainings if not training.done and not begun(training)}
    programs: dict[tuple[str, bool], list[Training]] = {}
    for cell in plan.cells:
        if cell.folder in waiting:
            programs.setdefault((cell.point, cell.variant == "float"), []).append(waiting.pop(cell.folder))
    size = lambda lanes: most or len(lanes)
    parts = [lanes[at : at + size(lanes)] for lanes in programs.values() for at in range(0, len(lanes), size(lanes))]
    for training in itertools.chain(*parts):
        _require_in_memory(training.cell.config)
    return [_group(part) for part in parts]


def _group(trainings: Sequence[Training]) -> Group:
    """With EXP-Net's settings if it is among them: the plain network is it with f = 0."""
    first = next((training for training in trainings if training.cell.variant == "expanded"), trainings[0])
    return Group(first.cell.config, tuple(trainings))


def run_vmapped(groups: Sequence[Group], directory: Path) -> dict[str, str]:
    """Run all groups; what the device has no memory for as two halves. A group that fails does not stop the others.

    Returns why, by folder, for the lanes that failed. Raises Stopped.
    """
    failed: dict[str, str] = {}
    waiting = list(groups)
    while waiting:
        group = waiting.pop(0)
        try:
            failed |= _run(group, directory)
        except (UserError, jax.errors.JaxRuntimeError) as error:
            if "RESOURCE_EXHAUSTED" in str(error) and len(group.trainings) > 1:
                print(f"{len(group.trainings)} trainings do not fit into memory together", file=sys.stderr)
                waiting = [*_halves(group), *waiting]
            else:
                failed |= {training.cell.folder: str(error).split("\n")[0] for training in group.trainings}
    return failed


def _halves(group: Group) -> list[Group]:
    middle = len(group.trainings) // 2
    return [_group(part) for part in (group.trainings[:middle], group.trainings[middle:])]


def _run(group: Group, directory: Path) -> dict[str, str]:
    run = VmappedTrainer(group, directory)
    try:
        run.train()
        return run.finish()
    finally:
        run.close()


class VmappedTrainer:
    """A group from its first step, or the one that it was stopped at, to its models."""

    def __init__(self, group: Group, directory: Path):
        self.group, self.workdir = group, directory / FOLDER / group.name
        self.setup = assemble(dataclasses.replace(group.config, mesh=MeshConfig(1)))
        self.train_feed, self.test_feed = _in_memory(self.setup.train), _in_memory(self.setup.test)
        self.seeds = [training.cell.seed for training in group.trainings]
        self.store = Store(self.workdir, keep_latest=2, keep_best=0)
        self.step, self.states, self.seconds = self._start()
        self.log = VmappedLog(group.trainings, self.setup, self.step)
        self.finished = False

    @cached_property
    def lanes(self) -> VmappedRuns:
        with_branch = [training.cell.variant == "expanded" for training in self.group.trainings]
        return VmappedRuns(self.setup.task, np.asarray(self.seeds, np.int32), np.asarray(with_branch, np.float32))

    @cached_property
    def _advanced(self) -> Any:
        """Compiled: (states, order of the epoch, step in it, all images, all labels) -> states."""

        def advanced(states: State, order: Array, position: Array, images: Array, labels: Array) -> State:
            chosen = order[:, position]
            return self.lanes.step(states, images[chosen], labels[chosen])

        return jax.jit(advanced, donate_argnums=(0,), out_shardings=self._everywhere)

    @cached_property
    def _logits(self) -> Any:
        return jax.jit(self.lanes.logits)

    @cached_property
    def _branch_shares(self) -> Any:
        return jax.jit(self.lanes.branch_shares)

    def _start(self) -> tuple[int, State, float]:
        """Step, states and seconds spent: of the newest checkpoint that can be read, or fresh ones."""
        found = self.store.newest_usable(lambda record: self._abstract(record["step"]))
        if found is not None:
            return found[0], found[1], found[2]["seconds"]
        states = [self._of_seed(seed).initial_state() for seed in self.seeds]
        return 0, self._stacked(states), 0.0

    @property
    def _everywhere(self) -> jax.sharding.Sharding:
        """Where all states lie, always: another place would be another program."""
        return replicated(self.setup.mesh)

    def _stacked(self, trees: Sequence[Any]) -> Any:
        """One tree of a lane each -> one of all lanes."""
        return jax.device_put(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees), self._everywhere)

    def _of_seed(self, seed: int) -> Setup:
        config = self.setup.config
        seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        train = dataclasses.replace(self.train_feed, seed=seed)
        return dataclasses.replace(self.setup, config=seeded, train=train)

    def _abstract(self, step: int) -> Any:
        stacked = lambda leaf: jax.ShapeDtypeStruct((len(self.seeds), *leaf.shape), leaf.dtype, sharding=leaf.sharding)
        return jax.tree.map(stacked, self.setup.abstract_state(step))

    def train(self) -> None:
        """Train to the end. Raises Stopped after a signal, when all is saved."""
        config, epoch_steps = self.setup.config, self.setup.epoch_steps
        images, labels = (jnp.asarray(array) for array in (self.train_feed.split.images, self.train_feed.split.labels))
        started, order = time.monotonic() - self.seconds, self._order()
        with caught_signals() as received:
            while self.step < self.setup.total_steps:
                if self.step % epoch_steps == 0:
                    order = self._order()
                self.states = self._advanced(self.states, order, self.step % epoch_steps, images, labels)
                self.step += 1
                self.states = self.setup.pruned(self.states, self.step)
                self._written()
                if self._due(config.checkpoint.every_steps or epoch_steps) or received:
                    self.seconds = time.monotonic() - started
                    self.store.save(self.step, self.states, {"step": self.step, "seconds": self.seconds})
                if received:
                    self.store.wait()
                    raise Stopped(received[0])

    def _order(self) -> Array:
        """Which images make up each batch of the epoch in hand, int32 [k, steps, batch]."""
        size, batch, epoch = len(self.train_feed), self.train_feed.batch_size, self.setup.epoch_steps
        first = self.step // epoch * epoch
        order = [[batch_indices(seed, first + at, size, batch) for at in range(epoch)] for seed in self.seeds]
        return jnp.asarray(np.array(order, np.int32))

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.setup.total_steps

    def _written(self) -> None:
        """Reports and evaluations, when a run of its own would write them."""
        if self._due(self.setup.config.report.every_steps):
            self.log.train(self.step, jax.device_get(self.states.tally))
            fresh = [Metrics.zero() for _ in self.seeds]
            self.states = dataclasses.replace(self.states, tally=self._stacked(fresh))
        if self._due(self.setup.epoch_steps):
            self.log.test(self.step, self.evaluate())
            if self.states.expanded and self.setup.config.report.branch:
                images = next(self.test_feed.eval_batches())[0]
                self.log.branch(self.step, jax.device_get(self._branch_shares(self.states, images)))

    def evaluate(self) -> list[dict[str, float]]:
        """Mean loss and accuracy over the whole test split, lane by lane."""
        logits, labels = [], []
        for images, given, mask in self.test_feed.eval_batches():
            logits.append(jax.device_get(self._logits(self.states, images))[:, mask > 0])
            labels.append(given[mask > 0])
        return [evaluation(lane, np.concatenate(labels)) for lane in np.concatenate(logits, 1)]

    def finish(self) -> dict[str, str]:
        """Write each lane's stripped model and mark it as done. Returns why, by folder, for those that failed."""
        self.store.wait()
        states = jax.device_get(self.states)
        for lane, training in enumerate(self.group.trainings):
            if training.cell.folder in self.log.failed:
                continue
            own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], kept(states.variables))
            described = dataclasses.replace(self.setup, config=training.cell.config).description()
            described["training"] = {**described["training"], "step": self.step, "test": self.log.tests[lane]}
            write_model(training.folder / "model", own, described)
            training.finish(together=len(self.seeds), seconds=self.seconds)
        self.finished = True
        return self.log.failed

    def close(self) -> None:
        """What is finished needs its checkpoint no more."""
        self.log.close()
        self.store.close()
        if self.finished:
            shutil.rmtree(self.workdir)


def _require_in_memory(config: Config) -> None:
    if config.data.crop:
        crop = f"data.crop={config.data.crop}"
        raise UserError(f"--together: {crop} reads record by record, allowed a set that is in memory")


def _in_memory(feed: DataLoader) -> ArrayLoader:
    assert isinstance(feed, ArrayLoader)
    return feed
