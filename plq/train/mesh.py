"""Devices as a named mesh, and where state and batches lie on it.

Two axes. Each batch is split over all devices of both. Over ``data`` the state is the same everywhere; over ``fsdp``
the kernels and all that the optimizer keeps for them are split too ("fully sharded"): a device holds one part of each
and gathers a whole kernel while a step needs it.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from plq.distributed.devices import devices as available
from plq.errors import UserError

AXES = ("data", "fsdp")


def make_mesh(shape: Mapping[str, int]) -> Mesh:
    """A mesh of the given sizes by axis, a process's devices side by side; one axis may be -1 for all there are.

    >>> dict(make_mesh({"data": 1, "fsdp": 1}).shape)
    {'data': 1, 'fsdp': 1}

    A single process may use the first of its devices only. Raises UserError for what the devices do not allow.
    """
    devices, sizes = sorted(available(), key=lambda device: (device.process_index, device.id)), dict(shape)
    given, found = " ".join(f"mesh.{axis}={size}" for axis, size in shape.items()), f"found {len(devices)} devices"
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if -1 in sizes.values() and len(devices) % fixed:
        raise UserError(f"{given}: {found}, allowed a number of them that {fixed} divides")
    sizes = {axis: len(devices) // fixed if size == -1 else size for axis, size in sizes.items()}
    needed = math.prod(sizes.values())
    if needed > len(devices):
        raise UserError(f"{given}: needs {needed} devices, {found}")
    if needed < len(devices) and jax.process_count() > 1:
        raise UserError(f"{given}: {found} in {jax.process_count()} processes, all of which must be used, not {needed}")
    return Mesh(np.asarray(devices[:needed]).reshape(*sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))


def batch_sharding(mesh: Mesh, batch_size: int, accumulate: int = 1) -> NamedSharding:
    """Examples split over all devices. Raises UserError unless each part of the batch divides evenly."""
    if batch_size % (mesh.size * accumulate):
        devices = f"{mesh.size} devices (mesh.data={mesh.shape['data']} x mesh.fsdp={mesh.shape['fsdp']})"
        parts = f", each in train.accumulate={accumulate} parts" if accumulate > 1 else ""
        raise UserError(f"data.batch_size={batch_size}: does not divide over {devices}{parts}")
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, tree: Any) -> Any:
    """For every leaf of a state (anything with a shape): what has two axes or more is split over ``fsdp``.

    Along its longest axis that divides evenly, of equals the last; a leaf without one is the same everywhere.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf.shape, mesh.shape["fsdp"])), tree)


def _spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    fitting = [axis for axis, length in enumerate(shape) if length % parts == 0] if len(shape) > 1 and parts > 1 else []
    if not fitting:
        return PartitionSpec()
    axis = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * axis, "fsdp")


def require_split(mesh: Mesh, tree: Any) -> None:
    """Raise UserError unless ``fsdp`` splits some leaf of this state."""
    parts, shapes = mesh.shape["fsdp"], [leaf.shape for leaf in jax.tree.leaves(tree)]
    if not any(_spec(shape, parts) for shape in shapes):
        largest = "x".join(map(str, max(shapes, key=math.prod)))
        raise UserError(f"mesh.fsdp={parts}: divides no axis of any kernel (the largest is {largest})")


def bytes_per_device(mesh: Mesh, tree: Any) -> int:
    """What a state takes on each device."""
    shardings = jax.tree.leaves(state_shardings(mesh, tree))
    leaves = zip(jax.tree.leaves(tree), shardings, strict=True)
    return sum(math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, sharding in leaves)


def place(mesh: Mesh, tree: Any) -> Any:
    """A state of values that are the same in every process, as arrays on the mesh."""
    shardings = state_shardings(mesh, tree)
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    cut = lambda leaf, sharding: jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__)
    return jax.tree.map(cut, tree, shardings)


def make_global_batch(sharding: NamedSharding, rows: Any) -> Any:
    """Arrays of this process's rows of a batch, each as the batch of all processes, on the mesh."""
    if jax.process_count() == 1:
        return jax.device_put(rows, sharding)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), rows)
