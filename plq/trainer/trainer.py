"""A run from its first step, or the one it was interrupted at, to the stripped model."""

import contextlib
import dataclasses
import signal
from pathlib import Path

import jax
import numpy as np

from plq.checkpoint.model_file import write_model
from plq.checkpoint.prune import pruned_leaves
from plq.checkpoint.store import Store
from plq.distributed.preemption import stop_signal
from plq.distributed.session import broadcast_from_primary, is_primary
from plq.errors import UserError
from plq.layers.variables import kept
from plq.report.log import NoLog, RunLog
from plq.report.progress import Progress
from plq.runtime import stripped_model
from plq.train.state import State
from plq.trainer.evaluation import evaluation
from plq.trainer.setup import Setup
from plq.trainer.workdir import MakeStore


class Interrupted(Exception):
    """A signal ended the run, after a save. ``signum``: which signal."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step:,}; saved, the same command goes on")
        self.signum = signum


class Run:
    """One experiment in its folder. `train` then `finish`; both go on from what the folder holds.

    With several processes each has a Run and all do the same, in one folder; the first one writes and speaks.
    ``make_store``: from folder, keep_latest and keep_best.
    """

    def __init__(self, setup: Setup, workdir: Path, make_store: MakeStore = Store):
        self.setup, self.workdir = setup, workdir
        keep = setup.config.checkpoint
        self.store = make_store(workdir / "checkpoints", keep.keep_latest, keep.keep_best)
        self.step, self.state, self.test = self._start()
        total, epoch = setup.total_steps, setup.epoch_steps
        if is_primary():
            progress = Progress(total, epoch, setup.config.data.batch_size, self.step)
            self.log: RunLog | NoLog = RunLog(workdir, progress, self.step, setup.config.report.tensorboard)
        else:
            self.log = NoLog()

    def _start(self) -> tuple[int, State, dict[str, float]]:
        """Step, state and last test figures: of the newest checkpoint that can be read, or fresh ones."""
        found = self.store.newest_usable(lambda record: self.setup.abstract_state(record["step"]))
        self._require_same_files(*((found[0], found[2]["data"].get("files", "")) if found else (0, "")))
        if found is None:
            return 0, self.setup.initial_state(), {}
        step, state, record = found
        return step, state, record["test"]

    @property
    def _files(self) -> dict[str, str]:
        return {"files": self.setup.info.fingerprint} if self.setup.info.fingerprint else {}

    def _require_same_files(self, step: int, saved: str) -> None:
        """Raise UserError for another folder of images than that of process 0, or than was ``saved`` at ``step``."""
        folder, found = self.setup.config.data.data_dir, self.setup.info.fingerprint
        if found and broadcast_from_primary("files", found) != found:
            raise UserError(f"data.data_dir={folder}: its images, labels or names are not those of process 0")
        if saved and found and saved != found:
            changed = f"its images, labels or names are not those that this run had at step {step:,}"
            raise UserError(f"data.data_dir={folder}: {changed}; put them back, or choose another --workdir")

    def train(self) -> None:
        """Train to the end. Raises Interrupted after a signal, UserError when the loss is not finite."""
        total, config = self.setup.total_steps, self.setup.config
        if self.step:
            self.log.note(f"going on from step {self.step:,} of {total:,}")
        elif self.setup.warm_start is not None:
            self.log.note(str(self.setup.warm_start))
        save_every = config.checkpoint.every_steps or self.setup.epoch_steps
        batches = self.setup.batches(self.step, total)
        with stop_signal() as stopped, contextlib.closing(batches):
            for batch in batches:
                self._advance(batch)
                if self._due(config.report.every_steps):
                    self._report()
                if self._due(self.setup.epoch_steps):
                    self._evaluate()
                signum = stopped(self.step)
                if self._due(save_every) or signum:
                    self._save()
                if signum:
                    self.store.wait()
                    raise Interrupted(signum, self.step)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.setup.total_steps

    def _advance(self, batch: tuple[jax.Array, jax.Array]) -> None:
        """One step; after the one that makes f 0 for good, the branch is removed."""
        self.state = self.setup.step(self.state, *batch)
        self.step += 1
        if self.setup.mesh.size > 1 and jax.default_backend() == "cpu":
            jax.block_until_ready(self.state.step)  # XLA:CPU deadlocks with several collective programs in flight
        pruned = self.setup.pruned(self.state, self.step)
        if self.state.expanded and not pruned.expanded:
            self._leave(pruned)

    def _leave(self, pruned: State) -> None:
        images = self.setup.test_batch()
        same = compare(*(np.asarray(self.setup.logits(state, images)) for state in (self.state, pruned)))
        dropped = pruned_leaves({"weights": self.state.weights, "statistics": self.state.statistics})
        what = f"the branch is removed: {dropped}"
        self.log.note(f"step {self.step:,}: f is 0, {what}; logits before and after: {same}")
        self.state = pruned

    def _report(self) -> None:
        metrics = jax.device_get(self.state.tally)
        self._require_finite(int(metrics.broken_step))
        values = {
            "loss": metrics.loss / metrics.examples,
            "accuracy": metrics.correct / metrics.examples,
            "lr": np.float32(self.setup.learning_rate(self.step - 1)),
            "factor": np.float32(self.setup.task.factor(self.step - 1)),
        }
        self.log.train(self.step, values)
        self.state = dataclasses.replace(self.state, tally=self.setup.fresh_tally())

    def _evaluate(self) -> None:
        self._require_finite(int(self.state.tally.broken_step))
        self.test = self.setup.evaluate(self.state)
        self.log.test(self.step, {**self.test, "factor": self._factor()})
        if self.setup.config.report.branch and self.state.expanded:
            shares = self.setup.branch_shares(self.state, self.setup.test_batch())
            self.log.branch(self.step, jax.device_get(shares))

    def _factor(self) -> float:
        """f of the state in hand: what its next step would use."""
        return float(self.setup.task.factor(self.step))

    def _require_finite(self, broken_step: int) -> None:
        if broken_step < 0:
            return
        self.store.wait()
        saved = self.store.steps()
        kept = f"the last good checkpoint is step {saved[-1]:,} in {self.workdir}" if saved else "nothing was saved yet"
        raise UserError(f"step {broken_step:,}: the loss or its gradient is not finite; {kept}")

    def _save(self) -> None:
        """State, data position, seed and config in one checkpoint; best only counts once f is 0."""
        self._require_finite(int(self.state.tally.broken_step))
        epoch, position = divmod(self.step, self.setup.epoch_steps)
        factor, evaluated = self._factor(), self._due(self.setup.epoch_steps)
        record = {
            "step": self.step,
            "data": {"seed": self.setup.config.train.seed, "epoch": epoch, "batch": position, **self._files},
            "factor": factor,
            "test": self.test,
            "config": self.setup.config.to_json(),
            "model": self.setup.description(),
        }
        best = self.test["accuracy"] if evaluated and factor == 0 else None
        self.store.save(self.step, self.state, record, best)

    def finish(self) -> None:
        """Write the stripped model and check what was written; nothing is written while f is above 0."""
        self.store.wait()
        factor = self._factor()
        if factor > 0:
            self.log.note(f"no model written: f is still {factor:.3g}, and removal is exact at f = 0 only")
            return
        path = self.workdir / "model"
        variables = jax.device_get(self.setup.replicate(kept(self.state.variables)))
        description = self.setup.description()
        description["training"] = {**description["training"], "step": self.step, "test": self.test}
        if is_primary():
            write_model(path, variables, description)
            self._check(path, stripped_model.load(path, self.setup.architecture.code))
        else:
            code = self.setup.architecture.code
            self._check(path, stripped_model.from_variables(variables, description, network=code))

    def _check(self, path: Path, model: stripped_model.Model) -> None:
        served, labels = self.setup.served_logits(model)
        trained, _ = self.setup.test_logits(self.state)
        accuracies = [evaluation(logits, labels)["accuracy"] for logits in (served, trained)]
        text = f"test accuracy {100 * accuracies[0]:.2f} % ({100 * accuracies[1]:.2f} % as trained)"
        self.log.note(f"{path}: {text}; logits: {compare(trained, served)}")

    def close(self) -> None:
        try:
            self.log.close()
        finally:
            self.store.close()


def compare(left: np.ndarray, right: np.ndarray) -> str:
    """How two arrays of logits [images, classes] differ, in words."""
    if np.array_equal(left, right):
        return f"bit-equal on {len(left):,} images"
    return f"differ by up to {np.abs(left - right).max():.3g} on {len(left):,} images"
