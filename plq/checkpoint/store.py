"""A run's checkpoints: whole training states with a record beside each, written by Orbax in the background.

A state is stored as a nested dict of its leaves by name, so that it can be read without the classes that
made it. Orbax restores a tree that does not match without a word, and does not notice changed bytes in
array data: both are checked here.
"""

import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from plq.checkpoint.match import Leaves, leaf_shapes, require_same_leaves
from plq.errors import UserError
from plq.variables import flatten, leaf_path, nest

# What reading a damaged checkpoint can raise: missing files, tensorstore and JSON errors, lacking keys.
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError)


class Store:
    """The checkpoints in one folder, by step. The newest ``keep_latest`` and the best ``keep_best`` are kept."""

    def __init__(self, directory: Path, keep_latest: int = 2, keep_best: int = 1):
        self.directory = Path(directory).absolute()
        policies = ocp.training.preservation_policies
        latest = policies.LatestN(keep_latest)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["accuracy"], n=keep_best, keep_checkpoints_without_metrics=False
        )
        keep = policies.AnyPreservationPolicy([latest, best]) if keep_best else latest
        self._checkpointer = ocp.training.Checkpointer(self.directory, preservation_policy=keep)

    def save(self, step: int, state: Any, record: Mapping[str, Any], accuracy: float | None = None) -> None:
        """Save in the background; the state may be used up as soon as this returns. A step there is left as is.

        Args:
            state: pytree of arrays. record: JSON values. accuracy: counts for the best; None never does.
        """
        self.wait()
        if step in self.steps():
            return
        leaves = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        copies = {path: _copy(leaf) for path, leaf in leaves.items()}
        checksums = {path: _checksum(leaf) for path, leaf in copies.items()}
        self._checkpointer.save_async(
            step,
            nest(copies),
            force=True,
            metrics=None if accuracy is None else {"accuracy": accuracy},
            custom_metadata={"record": dict(record), "crc32": checksums},
        )

    def wait(self) -> None:
        """Return when the save in progress, if any, is complete."""
        self._checkpointer.wait()

    def close(self) -> None:
        self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, rising."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def best_step(self) -> int | None:
        """The step of the best accuracy, the later of equals."""
        scored = [(point.metrics["accuracy"], point.step) for point in self._checkpointer.checkpoints if point.metrics]
        return max(scored)[1] if scored else None

    def choose(self, step: int | None) -> int:
        """The step asked for, or the newest. Raises UserError if it is not there."""
        steps = self.steps()
        if not steps:
            raise UserError(f"{self.directory}: holds no finished checkpoint")
        if step is not None and step not in steps:
            raise UserError(f"step {step}: not in {self.directory}; allowed: {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def record(self, step: int) -> dict[str, Any]:
        """What was saved beside the state. Reads no array. Raises UserError if it cannot be read."""
        return self._readable(step, lambda: self._metadata(step).custom_metadata["record"])

    def leaves(self, step: int) -> Leaves:
        """Shape and dtype of every leaf by path. Reads no array. Raises UserError if it cannot be read."""
        return self._readable(step, lambda: leaf_shapes(self._metadata(step).metadata))

    def restore(self, step: int, like: Any) -> Any:
        """The state, in the structure, dtypes and shardings of ``like`` (arrays or ShapeDtypeStructs).

        Raises UserError if the leaves are not those of ``like``, or cannot be read.
        """
        require_same_leaves(self.leaves(step), leaf_shapes(like), f"{self.directory} step {step}")
        paths, structure = jax.tree_util.tree_flatten_with_path(like)
        wanted = nest({leaf_path(path): leaf for path, leaf in paths})
        loaded = flatten(self._readable(step, lambda: self._load(step, wanted)))
        return jax.tree.unflatten(structure, [loaded[leaf_path(path)] for path, _ in paths])

    def restore_plain(self, step: int, keys: tuple[str, ...]) -> dict[str, Any]:
        """Only these top-level entries of the state, as nested dicts of NumPy arrays."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        chosen = {path: leaf for path, leaf in self.leaves(step).items() if path.split("/")[0] in keys}
        wanted = {
            path: jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=here)
            for path, (shape, dtype) in chosen.items()
        }
        return jax.device_get(self._readable(step, lambda: self._load(step, nest(wanted), partial=True)))

    def newest_usable(self, like_for: Callable[[dict[str, Any]], Any]) -> tuple[int, Any, dict[str, Any]] | None:
        """Step, state and record of the newest checkpoint that can be read; None if there is none at all.

        ``like_for`` gives the abstract state for a record. What cannot be read is warned about and moved
        aside; what a killed save left is warned about and removed. Raises UserError if there are checkpoints
        and none can be read, or if one does not fit the model.
        """
        self._remove_unfinished()
        steps = self.steps()
        for step in reversed(steps):
            try:
                record, _ = self.record(step), self.leaves(step)
            except UnreadableError as error:
                self._set_aside(step, error)
                continue
            like = like_for(record)
            try:
                return step, self.restore(step, like), record
            except UnreadableError as error:
                self._set_aside(step, error)
        if steps:
            raise UserError(f"{self._aside()}: none of the checkpoints {steps} can be read; start in another folder")
        return None

    def _metadata(self, step: int) -> Any:
        return self._checkpointer.metadata(step)

    def _load(self, step: int, wanted: Any, partial: bool = False) -> Any:
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context:
            loaded = self._checkpointer.load(step, wanted)
        checksums = self._metadata(step).custom_metadata["crc32"]
        for path, leaf in flatten(loaded).items():
            if checksums[path] != _checksum(leaf):
                raise ValueError(f"{path} is damaged: its checksum is not the one it was saved with")
        return loaded

    def _readable(self, step: int, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except UNREADABLE as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UnreadableError(f"{self.directory / str(step)}: cannot be read ({reason})") from error

    def _aside(self) -> Path:
        return self.directory.with_name(self.directory.name + ".unreadable")

    def _set_aside(self, step: int, error: "UnreadableError") -> None:
        """Out of the way of a later save of the same step; not deleted."""
        self._aside().mkdir(exist_ok=True)
        target = self._aside() / str(step)
        shutil.rmtree(target, ignore_errors=True)
        (self.directory / str(step)).rename(target)
        self._checkpointer.reload()
        warnings.warn(f"skipped: {error}; moved to {target}", stacklevel=3)

    def _remove_unfinished(self) -> None:
        leftovers = [path for path in self.directory.glob("*tmp*") if path.is_dir()]
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
        if leftovers:
            names = ", ".join(path.name for path in leftovers)
            warnings.warn(f"skipped: half-written checkpoints in {self.directory}: {names}; removed", stacklevel=3)


class UnreadableError(UserError):
    """A checkpoint that is there and cannot be read."""


def open_store(workdir: Path) -> Store:
    """The checkpoints of a training folder, for reading. Raises UserError if it is not one."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir}: holds no folder checkpoints; expected a folder that training wrote")
    return Store(workdir / "checkpoints")


def _copy(leaf: jax.Array) -> jax.Array:
    """On a CPU the host sees the device's own buffer, which the next step may reuse while it is written."""
    return jnp.copy(leaf) if next(iter(leaf.devices())).platform == "cpu" else leaf


def _checksum(leaf: jax.Array) -> int | None:
    """CRC-32 of the values; None where this process does not hold all of them."""
    if leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    if not leaf.is_fully_addressable:
        return None
    return zlib.crc32(np.ascontiguousarray(leaf).tobytes())
