"""Batches ahead of their use, and the batches of an evaluation."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TypeVar

import grain
import numpy as np

from plq.data.sets import Split

Item = TypeVar("Item")
MaskedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]


def prefetch(
    make: Callable[[int], Item], start: int, stop: int, threads: int = 1, ahead: int = 2
) -> Generator[Item, None, None]:
    """``make(start)``, ..., ``make(stop - 1)`` in order, made by Grain's threads up to ``ahead`` before their use.

    What ``make`` raises is raised here, at its place. Closing the iterator ends the threads.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    with closing(iter(grain.MapDataset.range(start, stop).map(make).to_iter_dataset(options))) as items:
        yield from items


def prefetch_to_device(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each taken before the one before it is handed out."""
    held: deque[Item] = deque()
    for item in items:
        held.append(item)
        if len(held) > 1:
            yield held.popleft()
    yield from held


def padded_batches(split: Split, batch_size: int) -> Iterator[MaskedBatch]:
    """(images, labels, mask) over the whole split; the last batch is filled up with images of mask 0."""
    for start in range(0, len(split.labels), batch_size):
        yield pad_batch(split.images[start : start + batch_size], split.labels[start : start + batch_size], batch_size)


def pad_batch(images: np.ndarray, labels: np.ndarray, batch_size: int) -> MaskedBatch:
    """(images, labels, mask) of ``batch_size`` examples: those given have mask 1, and black ones follow."""
    missing = batch_size - len(labels)
    mask = np.ones(batch_size, np.float32)
    if missing:
        mask[len(labels) :] = 0
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        labels = np.concatenate([labels, np.zeros(missing, np.int32)])
    return np.ascontiguousarray(images), labels, mask
