"""Whether something is an `nnx.Module`; Flax NNX is not imported to find out."""

import sys
from typing import Any


def is_nnx(value: Any) -> bool:
    """A value can be one only where somebody has imported NNX."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Module)
