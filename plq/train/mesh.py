"""Devices as a named mesh, and where state and batches lie on it."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from plq.errors import UserError


def make_mesh(shape: Mapping[str, int]) -> Mesh:
    """A mesh over all devices, or the first ones; one axis may be -1 for as many as there are.

    >>> make_mesh({"data": 1}).shape["data"]
    1

    Raises UserError if the axes need more devices than there are.
    """
    devices, sizes = jax.devices(), dict(shape)
    for axis, size in sizes.items():
        if size != -1 and size < 1:
            raise UserError(f"mesh.{axis}={size}: allowed 1 or more, or -1 for all devices")
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    sizes = {axis: len(devices) // fixed if size == -1 else size for axis, size in sizes.items()}
    needed = int(np.prod(list(sizes.values())))
    if needed > len(devices) or needed == 0:
        raise UserError(f"mesh={dict(shape)}: needs {max(needed, fixed)} devices, found {len(devices)}")
    grid = np.asarray(devices[:needed]).reshape(tuple(sizes.values()))
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def batch_sharding(mesh: Mesh, batch_size: int) -> NamedSharding:
    """Examples split over the data axis. Raises UserError unless they divide evenly."""
    shards = mesh.shape["data"]
    if batch_size % shards:
        raise UserError(f"data.batch_size={batch_size}: does not divide over {shards} devices (mesh.data={shards})")
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())
