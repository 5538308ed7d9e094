"""Large sets of photographs: records decoded as they are needed, by threads, in an order fixed by the seed.

A batch is a function of seed, step and shard alone. Its examples are those of `batch_indices`, and the random
numbers of each come from a Philox generator keyed by seed, step and its position in the batch, so training goes on
at any step without the state of an iterator. A thread pool does this: decoding and resizing leave Python's lock,
and Grain's threads gave the same batches more slowly (benchmarks/input_pipeline.py compares the two), while its
iterator state, which is what it is for, is not needed.
"""

import dataclasses
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from plq.data.crops import Crop, center_box, decode_crop, flip
from plq.data.order import batch_indices, steps_per_epoch
from plq.data.source import RecordSource
from plq.errors import UserError

Batch = tuple[np.ndarray, np.ndarray]
AHEAD = 2  # batches made before they are asked for
CHUNK = 4  # images for a thread at a time
IN_A_ROW = 100  # unreadable records after which no good one is looked for
AT_LEAST = 1000  # records that the share of the unreadable is taken of


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a step's batch depends on, beside the step. ``batch_size`` counts the images of all shards."""

    source: RecordSource
    batch_size: int
    size: int
    seed: int
    crop: Crop
    flip: bool
    shard: tuple[int, int]

    def __post_init__(self) -> None:
        steps_per_epoch(len(self.source), self.batch_size)
        index, count = self.shard
        if not 0 <= index < count or self.batch_size % count:
            found = f"data.batch_size={self.batch_size}: shard {index} of {count}"
            raise UserError(f"{found}, allowed a multiple of the number of shards")

    @property
    def positions(self) -> range:
        """This shard's part of each batch."""
        index, count = self.shard
        share = self.batch_size // count
        return range(index * share, (index + 1) * share)

    def generator(self, step: int, position: int) -> np.random.Generator:
        """The random numbers of one example; the 1 keeps them apart from those of the order."""
        return np.random.Generator(np.random.Philox(key=[self.seed, step], counter=[0, 0, position, 1]))

    def candidates(self, step: int, position: int) -> Iterator[int]:
        """The record that belongs here, then those that follow in the order of the epochs."""
        for place in range(position, position + IN_A_ROW):
            ahead, at = divmod(place, self.batch_size)
            yield int(batch_indices(self.seed, step + ahead, len(self.source), self.batch_size)[at])


def train_batches(
    source: RecordSource,
    batch_size: int,
    size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    crop: Crop,
    flip: bool = True,
    threads: int = 8,
    shard: tuple[int, int] = (0, 1),
    corrupt_share: float = 0.001,
) -> Generator[Batch, None, None]:
    """Batches of steps ``start_step`` to ``stop_step`` - 1: uint8 images [B, size, size, 3] and int32 labels [B].

    Args:
        batch_size: images of a step over all shards; B is this shard's part of them.
        crop: one of `plq.data.crops.CROPS`, or any function like them.
        shard: (index, count) of this process.
        corrupt_share: how many of the records seen may be unreadable. Such a record is replaced by the next readable
            one in order and named in a warning.
    Raises UserError for more of them, for a damaged file, and for a batch that the set or the shards do not allow.
    Closing the iterator ends its threads.
    """
    if not 0 <= corrupt_share <= 1:
        raise UserError(f"data.corrupt_share={corrupt_share}: allowed 0 to 1")
    if threads < 1:
        raise UserError(f"data.threads={threads}: allowed 1 or more")
    plan = Plan(source, batch_size, size, seed, crop, flip, shard)
    return _stream(plan, range(start_step, stop_step), threads, Tally(corrupt_share))


def _stream(plan: Plan, steps: range, threads: int, tally: "Tally") -> Generator[Batch, None, None]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="records")
    pending: deque[_Pending] = deque()
    try:
        for step in steps:
            pending.append(_Pending(pool, plan, step))
            if len(pending) > AHEAD:
                yield pending.popleft().result(tally)
        while pending:
            yield pending.popleft().result(tally)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Pending:
    """A batch that threads are filling."""

    def __init__(self, pool: ThreadPoolExecutor, plan: Plan, step: int) -> None:
        self.plan, self.step = plan, step
        self.images = np.empty((len(plan.positions), plan.size, plan.size, 3), np.uint8)
        self.labels = np.empty(len(plan.positions), np.int32)
        starts = range(0, len(plan.positions), CHUNK)
        self.chunks: list[Future[list[str]]] = [pool.submit(self.fill, start) for start in starts]

    def fill(self, start: int) -> list[str]:
        """Make some of the images; what was unreadable on the way."""
        unreadable: list[str] = []
        for row, position in enumerate(self.plan.positions[start : start + CHUNK], start):
            self.images[row], self.labels[row] = example(self.plan, self.step, position, unreadable)
        return unreadable

    def result(self, tally: "Tally") -> Batch:
        unreadable = [message for chunk in self.chunks for message in chunk.result()]
        tally.count(len(self.labels), unreadable)
        return self.images, self.labels


def example(plan: Plan, step: int, position: int, unreadable: list[str]) -> tuple[np.ndarray, int]:
    """Image uint8 [size, size, 3] and label; appends the messages of the records that were passed over."""
    for index in plan.candidates(step, position):
        data, label = plan.source[index]
        rng = plan.generator(step, position)
        choose = lambda height, width, rng=rng: plan.crop(rng, height, width, plan.size)
        try:
            image = decode_crop(data, plan.source.where(index), plan.size, choose)
        except UserError as error:
            unreadable.append(str(error))
            continue
        return flip(rng, image) if plan.flip else image, label
    raise UserError(f"{plan.source.where(index)}: neither it nor the {IN_A_ROW - 1} before it is a readable image")


class Tally:
    """Counts unreadable records."""

    def __init__(self, allowed: float) -> None:
        self.allowed, self.seen, self.unreadable = allowed, 0, 0
        self.named: set[str] = set()

    def count(self, good: int, unreadable: list[str]) -> None:
        """Warn about each record once. Raises UserError if they are too many, of all seen or of the first 1,000."""
        self.seen += good + len(unreadable)
        for message in unreadable:
            self.unreadable += 1
            if message not in self.named:
                self.named.add(message)
                warnings.warn(f"{message}; another takes its place, {len(self.named)} by now", stacklevel=4)
        if self.unreadable > self.allowed * max(self.seen, AT_LEAST):
            found = f"{self.unreadable} of {self.seen} records are unreadable, the last {unreadable[-1]}"
            raise UserError(f"{found}; allowed a share of {self.allowed:g} (data.corrupt_share)")


def eval_arrays(source: RecordSource, size: int, indices: Iterable[int], resize: int = 0, threads: int = 8) -> Batch:
    """The middle of these records: uint8 images [n, size, size, 3] and int32 labels [n].

    ``resize``: length of the shorter side before cropping; 0: size * 256 / 224.
    Raises UserError for a record that cannot be read.
    """

    def one(index: int) -> tuple[np.ndarray, int]:
        data, label = source[index]
        choose = partial(center_box, size=size, resize=resize)
        return decode_crop(data, source.where(index), size, choose), label

    with ThreadPoolExecutor(threads) as pool:
        examples = list(pool.map(one, indices))
    images = np.stack([image for image, _ in examples]) if examples else np.empty((0, size, size, 3), np.uint8)
    return images, np.array([label for _, label in examples], np.int32)
