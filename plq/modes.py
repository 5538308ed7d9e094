"""JAX's modes of numbers: what is computed in here is the same in each of them."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def in_32_bits() -> Iterator[None]:
    """JAX as it is by default, whatever JAX_ENABLE_X64 and JAX_NUMPY_DTYPE_PROMOTION say.

    For code of other libraries that leaves the type of a number to JAX: Optax's schedules and Flax's dropout would
    compute in float64, draw other random numbers with it, or raise TypeError.
    """
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
