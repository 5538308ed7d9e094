"""A run's checkpoints: whole training states with a record beside each, written by Orbax in the background.

A state is stored as a nested dict of its leaves by name, so that it can be read without the classes that
made it. Orbax restores a tree that does not match without a word, does not notice changed bytes in array
data, and takes a tree it cannot read for an empty one: so each checkpoint carries a manifest of its own,
with shape, dtype and checksum of every leaf, the record and the accuracy, itself under a checksum.

A checkpoint does not depend on the mesh it was saved from. With several processes all of them call each method, on one
folder that all of them see; process 0 makes, moves and removes folders. Or each has a folder of its own, with whole
checkpoints in it.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather, sync_global_devices
from orbax.checkpoint import v1 as ocp

from plq.checkpoint.manifest import checksums, require_intact, with_crc, without_crc
from plq.checkpoint.match import Leaves, leaf_shapes, require_same_leaves
from plq.checkpoint.reading import READ_ERRORS, WRITE_ERRORS, UnreadableError, hushed, reading, reason
from plq.checkpoint.retention import Retention
from plq.distributed.session import broadcast_from_primary, is_primary
from plq.errors import UserError
from plq.layers.variables import flatten, leaf_path, leaves_with_path, nest

Record = dict[str, Any]
T = TypeVar("T")


class Store:
    """The checkpoints in one folder, by step: the newest ``keep_latest`` and the best ``keep_best``.

    ``shared``: of several processes, all use this very folder.
    """

    def __init__(self, directory: Path, keep_latest: int = 2, keep_best: int = 1, shared: bool = True):
        self.directory = Path(directory).absolute()
        self._shared = shared or jax.process_count() == 1
        self._keep = Retention(keep_latest, keep_best, {})
        self._checkpointer = self._opened()
        for step in self.steps():
            self._keep.note(step, self._accuracy(step))

    def save(self, step: int, state: Any, record: Mapping[str, Any], accuracy: float | None = None) -> None:
        """Save in the background; the state may be used up once this returns. A step there is left as is.

        Args:
            state: pytree of arrays. record: JSON values. accuracy: counts for the best; None never does.
        """
        self.wait()
        if step in self.steps():
            return
        copies = {path: _copy(leaf) for path, leaf in leaves_with_path(state)}
        manifest = {
            "record": dict(record),
            "accuracy": accuracy,
            "leaves": leaf_shapes(state),
            "checksums": checksums(copies),
        }
        self._keep.note(step, accuracy)
        saved = nest(copies if self._shared else {path: _whole(leaf) for path, leaf in copies.items()})
        begin = lambda: self._checkpointer.save_async(step, saved, force=True, custom_metadata=with_crc(manifest))
        self._writing(begin)

    def wait(self) -> None:
        """Return when the save in progress, if any, is complete. Raises UserError if it failed."""
        self._writing(self._checkpointer.wait)

    def close(self) -> None:
        """Finish the save in progress. To be called after saving: a program that ends without it loses that
        save, and may hang in Orbax, whose threads need others that can no longer be started.
        """
        self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, rising."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def best_step(self) -> int | None:
        """The step of the best accuracy, the later of equals."""
        return next(iter(self._keep.ranked(self.steps())), None)

    def choose(self, step: int | None) -> int:
        """The step asked for, or the newest. Raises UserError if it is not there."""
        steps = self.steps()
        if not steps:
            raise UserError(f"{self.directory}: holds no finished checkpoint")
        if step is not None and step not in steps:
            raise UserError(f"step {step}: not in {self.directory}; allowed: {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def record(self, step: int) -> Record:
        """What was saved beside the state. Reads no array. Raises UserError if it cannot be read."""
        return self._agreed(step, lambda: self._manifest(step)["record"])

    def leaves(self, step: int) -> Leaves:
        """Shape and dtype of every leaf by path. Reads no array. Raises UserError if it cannot be read."""
        leaves = self._agreed(step, lambda: self._manifest(step)["leaves"])
        return {path: (tuple(shape), dtype) for path, (shape, dtype) in leaves.items()}

    def restore(self, step: int, like: Any) -> Any:
        """The state, in the structure, dtypes and shardings of ``like`` (arrays or ShapeDtypeStructs).

        Raises UserError if the leaves are not those of ``like``, or cannot be read.
        """
        require_same_leaves(self.leaves(step), leaf_shapes(like), f"{self.directory} step {step}")
        paths, structure = jax.tree_util.tree_flatten_with_path(like)
        wanted = nest({leaf_path(path): leaf for path, leaf in paths})
        loaded = self._load(step, wanted)
        return jax.tree.unflatten(structure, [loaded[leaf_path(path)] for path, _ in paths])

    def restore_plain(self, step: int, keys: tuple[str, ...]) -> dict[str, Any]:
        """Only these top-level entries of the state, as nested dicts of NumPy arrays."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        chosen = {path: leaf for path, leaf in self.leaves(step).items() if path.split("/")[0] in keys}
        wanted = {
            path: jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=here) for path, (shape, dtype) in chosen.items()
        }
        loaded = self._load(step, nest(wanted), partial=True) if wanted else {}
        return {key: {} for key in keys} | nest(jax.device_get(loaded))

    def newest_usable(self, like_for: Callable[[Record], Any]) -> tuple[int, Any, Record] | None:
        """Step, state and record of the newest checkpoint that can be read; None if there is none at all.

        ``like_for`` gives the abstract state for a record. What cannot be read is warned about and, once an
        older one could be read, moved aside; what a killed save left is warned about and removed. Raises
        UserError if there are checkpoints and none can be read, or if one does not fit the model.
        """
        if self._tidies():
            self._remove_unfinished()
        # Another machine may see a new folder later than process 0.
        steps = json.loads(broadcast_from_primary("checkpoints", json.dumps(self.steps())))
        for step in reversed(steps):
            try:
                record = self.record(step)
                state = self.restore(step, like_for(record))
            except UnreadableError as error:
                _warn(f"skipped: {error}")
                continue
            self._set_aside([newer for newer in steps if newer > step])
            return step, state, record
        if steps:
            raise UserError(f"{self.directory}: none of the checkpoints {steps} can be read; start elsewhere")
        return None

    def _opened(self) -> ocp.training.Checkpointer:
        """Orbax reads when each step was saved, and there is no going on without."""
        context = ocp.Context()
        if not self._shared:
            context.multiprocessing_options.primary_host = None  # each one makes folders and writes what is whole
        with hushed():
            try:
                return ocp.training.Checkpointer(self.directory, context=context, preservation_policy=self._keep)
            except READ_ERRORS as error:
                raise UserError(f"{self.directory}: cannot be opened ({reason(error)})") from error

    def _manifest(self, step: int) -> dict[str, Any]:
        """What `save` wrote beside the arrays. Raises one of READ_ERRORS if it cannot be read."""
        file = self.directory / str(step) / "_CHECKPOINT_METADATA"
        return without_crc(json.loads(file.read_text("utf-8"))["custom_metadata"])

    def _accuracy(self, step: int) -> float | None:
        try:
            return self._manifest(step)["accuracy"]
        except READ_ERRORS:
            return None

    def _load(self, step: int, wanted: Any, partial: bool = False) -> dict[str, jax.Array]:
        """The wanted leaves by path, compared with their checksums."""

        def read() -> dict[str, jax.Array]:
            context = ocp.Context()
            context.pytree.loading.partial_load = partial
            # Each process reads by itself: one that cannot would keep the others waiting.
            context.multiprocessing_options.active_processes = {jax.process_index()}
            context.multiprocessing_options.primary_host = jax.process_index()
            with context:
                return flatten(self._checkpointer.load(step, wanted))

        def compare() -> None:
            require_intact({path: loaded[path] for path in flatten(wanted)}, self._manifest(step)["checksums"])

        loaded = self._agreed(step, read)
        self._agreed(step, compare)
        return loaded

    def _agreed(self, step: int, read: Callable[[], T]) -> T:
        """``read()`` in every process. Raises UnreadableError in all of them if one cannot."""
        source, found, trouble = str(self.directory / str(step)), [], None
        try:
            found.append(reading(source, read))
        except UnreadableError as error:
            trouble = error
        if not process_allgather(np.array(not trouble)).all():
            raise trouble or UnreadableError(f"{source}: cannot be read by another process")
        return found[0]

    def _tidies(self) -> bool:
        """Whether this process makes, moves and removes folders."""
        return is_primary() or not self._shared

    def _aside(self) -> Path:
        return self.directory.with_name(self.directory.name + ".unreadable")

    def _set_aside(self, steps: list[int]) -> None:
        """Out of the way of later saves of the same steps; not deleted."""
        if not steps:
            return
        if self._tidies():
            for step in steps:
                self._aside().mkdir(exist_ok=True)
                target = self._aside() / str(step)
                shutil.rmtree(target, ignore_errors=True)
                (self.directory / str(step)).rename(target)
        sync_global_devices("set aside")
        with hushed():
            self._checkpointer.reload()
        _warn(f"moved to {self._aside()}: unreadable checkpoints {steps}")

    def _remove_unfinished(self) -> None:
        leftovers = [path for path in self.directory.glob("*.orbax-checkpoint-tmp*") if path.is_dir()]
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
        if leftovers:
            names = ", ".join(path.name for path in leftovers)
            _warn(f"{self.directory}: removed half-written checkpoints {names}")

    def _writing(self, write: Callable[[], Any]) -> None:
        """``write()``. Raises UserError if the folder does not take it."""
        with hushed():
            try:
                write()
                return
            except WRITE_ERRORS as error:
                why = reason(error)
        saved = self.steps()
        kept = f"the newest complete checkpoint is step {saved[-1]:,}" if saved else "there is no complete checkpoint"
        raise UserError(f"{self.directory}: cannot be written to ({why}); {kept}, from which the same command goes on")


def open_store(workdir: Path) -> Store:
    """The checkpoints of a training folder, for reading. Raises UserError if it is not one."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir}: holds no folder checkpoints; expected a folder that training wrote")
    return Store(workdir / "checkpoints")


def _warn(text: str) -> None:
    """Once for all processes."""
    if is_primary():
        warnings.warn(text, stacklevel=4)


def _whole(leaf: jax.Array) -> np.ndarray:
    """All of a leaf, also one that is spread over processes; then all of them must call this."""
    return np.asarray(leaf if leaf.is_fully_replicated else process_allgather(leaf, tiled=True))


def _copy(leaf: jax.Array) -> jax.Array:
    """On a CPU the host sees the device's own buffer, which the next step may reuse while it is written."""
    return jnp.copy(leaf) if next(iter(leaf.devices())).platform == "cpu" else leaf
