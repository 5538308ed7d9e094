"""Batches ahead of their use, and the batches of an evaluation."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from plq.data.sets import Split

Batch = TypeVar("Batch")
MaskedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]


def prefetch(make_batch: Callable[[int], Batch], start: int, stop: int, depth: int = 2) -> Generator[Batch, None, None]:
    """``make_batch(start)``, ..., ``make_batch(stop - 1)``, made in a thread up to ``depth`` steps ahead.

    What ``make_batch`` raises is raised here, at its step. Closing the iterator ends the thread.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    pending: deque[Future[Batch]] = deque()
    try:
        for step in range(start, stop + depth):
            if step < stop:
                pending.append(pool.submit(make_batch, step))
            if len(pending) > depth or step >= stop:
                if not pending:
                    return
                yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def eval_batches(split: Split, batch_size: int) -> Iterator[MaskedBatch]:
    """(images, labels, mask) over the whole split; the last batch is filled up with images of mask 0."""
    for start in range(0, len(split.labels), batch_size):
        yield filled_up(split.images[start : start + batch_size], split.labels[start : start + batch_size], batch_size)


def filled_up(images: np.ndarray, labels: np.ndarray, batch_size: int) -> MaskedBatch:
    """(images, labels, mask) of ``batch_size`` examples: those given have mask 1, and black ones follow."""
    missing = batch_size - len(labels)
    mask = np.ones(batch_size, np.float32)
    if missing:
        mask[len(labels) :] = 0
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        labels = np.concatenate([labels, np.zeros(missing, np.int32)])
    return np.ascontiguousarray(images), labels, mask
