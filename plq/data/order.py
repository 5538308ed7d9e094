"""Which examples make up the batch of a step: a function of seed and step alone."""

from functools import lru_cache

import numpy as np

from plq.errors import UserError


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Whole batches in a set; the rest of each epoch's permutation is dropped.

    Raises UserError if the batch is larger than the set.
    """
    if batch_size > num_examples:
        raise UserError(f"data.batch_size={batch_size}: larger than the training set of {num_examples} examples")
    return num_examples // batch_size


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_examples)


def batch_indices(seed: int, step: int, num_examples: int, batch_size: int) -> np.ndarray:
    """Indices [batch_size] of the examples of a step, counted from 0; no example twice in an epoch."""
    epoch, position = divmod(step, steps_per_epoch(num_examples, batch_size))
    return _permutation(seed, epoch, num_examples)[position * batch_size : (position + 1) * batch_size]


def shard_rows(batch_size: int, shard: tuple[int, int]) -> slice:
    """The rows of every batch that process ``index`` of ``count`` makes, for shard = (index, count).

    Raises UserError unless all processes get the same number.
    """
    index, count = shard
    if batch_size % count:
        raise UserError(f"data.batch_size={batch_size}: does not divide over {count} processes")
    share = batch_size // count
    return slice(index * share, (index + 1) * share)
