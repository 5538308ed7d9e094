"""What lies beside the arrays of a checkpoint, and the checksums that show whether anything has changed."""

import json
import math
import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

ODD = np.uint64(0x9E3779B97F4A7C15)


def checksums(leaves: dict[str, jax.Array]) -> dict[str, int]:
    """A number for each leaf, the same however the leaf is split over devices and processes:

        sum over positions i of  value[i] * (i * ODD | 1)  modulo 2 ** 64

    of the values' bits as unsigned integers. The factors are odd, so a change of one value always shows. Being a sum,
    it is made of the parts that devices hold: a leaf that no process holds whole is added up over all, and then all
    processes must call this.
    """
    sums, split = {}, []
    for path, leaf in leaves.items():
        held = list({str(shard.index): shard for shard in leaf.addressable_shards}.values())
        if sum(shard.data.size for shard in held) < leaf.size:
            split.append(path)
            held = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
        sums[path] = sum(_sum(shard, leaf.shape) for shard in held) % 2**64
    if split:
        own = np.array([sums[path] for path in split], np.uint64).view(np.uint32)  # JAX has no 64 bits here
        totals = process_allgather(own).view(np.uint64).sum(0)
        sums.update(zip(split, totals.tolist(), strict=True))
    return sums


def _sum(shard: Any, shape: tuple[int, ...]) -> int:
    """What a part of a leaf of this shape adds to the leaf's number."""
    values = np.asarray(shard.data)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    spans = zip([part.start or 0 for part in shard.index], values.shape, strides, strict=True)
    places = [np.arange(start, start + length, dtype=np.uint64) * np.uint64(stride) for start, length, stride in spans]
    factors = np.asarray(sum(np.ix_(*places), np.uint64(0)) * ODD | np.uint64(1))
    return int(np.multiply(factors, values.view(f"u{values.itemsize}"), out=factors).sum(dtype=np.uint64))


def require_intact(leaves: dict[str, jax.Array], saved: dict[str, int]) -> None:
    """Raise ValueError unless the checksums are those that were saved."""
    for path, found in checksums(leaves).items():
        if found != saved[path]:
            raise ValueError(f"{path} is damaged: its checksum is not the one it was saved with")


def with_crc(manifest: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(manifest)
    return {"manifest": text, "crc32": zlib.crc32(text.encode())}


def without_crc(with_crc: dict[str, Any]) -> dict[str, Any]:
    """The manifest. Raises ValueError if it is not as it was sealed."""
    if zlib.crc32(with_crc["manifest"].encode()) != with_crc["crc32"]:
        raise ValueError("the record is damaged: its checksum is not the one it was saved with")
    return json.loads(with_crc["manifest"])
