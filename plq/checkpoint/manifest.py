"""What lies beside the arrays of a checkpoint, and the checksums that show whether anything has changed."""

import json
import zlib
from typing import Any

import jax
import numpy as np


def checksum(leaf: jax.Array) -> int | None:
    """CRC-32 of the values; None where this process does not hold all of them."""
    if leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    if not leaf.is_fully_addressable:
        return None
    return zlib.crc32(np.ascontiguousarray(leaf).tobytes())


def require_intact(leaves: dict[str, jax.Array], checksums: dict[str, int | None]) -> None:
    for path, leaf in leaves.items():
        found, saved = checksum(leaf), checksums[path]
        if None not in (found, saved) and found != saved:
            raise ValueError(f"{path} is damaged: its checksum is not the one it was saved with")


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(manifest)
    return {"manifest": text, "crc32": zlib.crc32(text.encode())}


def unsealed(sealed: dict[str, Any]) -> dict[str, Any]:
    """The manifest. Raises ValueError if it is not as it was sealed."""
    if zlib.crc32(sealed["manifest"].encode()) != sealed["crc32"]:
        raise ValueError("the record is damaged: its checksum is not the one it was saved with")
    return json.loads(sealed["manifest"])
