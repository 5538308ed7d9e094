"""Large sets of photographs: records decoded as they are needed, by Grain's threads, in an order fixed by the seed.

A place is a position in the batches of all epochs, one after the other. What lies at a place is a function of the seed
and the place alone: Grain shuffles each epoch by a formula, not a list, and gives each place random numbers of its own.
So a batch is a function of seed, step and shard, and training goes on at any step without the state of an iterator.
"""

import dataclasses
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import cached_property, partial
from typing import Any, NamedTuple

import grain
import numpy as np

from plq.data.crops import Crop, center_box, decode_crop, flip
from plq.data.images import Size
from plq.data.order import steps_per_epoch
from plq.data.prefetch import prefetch
from plq.data.source import Source
from plq.errors import UserError

Batch = tuple[np.ndarray, np.ndarray]
AHEAD = 2  # batches made before they are asked for
IN_A_ROW = 100  # unreadable records after which no good one is looked for
ALL = slice(None)
AT_LEAST = 1000  # records that the share of the unreadable is taken of


class Example(NamedTuple):
    """uint8 [height, width, 3], a label, and what was said of each record that was passed over on the way."""

    image: np.ndarray
    label: int
    unreadable: list[str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a step's batch depends on, beside the step. ``batch_size`` counts the images of all shards."""

    source: Source
    batch_size: int
    size: Size
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
    def share(self) -> int:
        """Images of a batch in one shard."""
        return self.batch_size // self.shard[1]

    @cached_property
    def records(self) -> grain.MapDataset:
        """The record at each place; the rest of each epoch that fills no batch is dropped."""
        whole = steps_per_epoch(len(self.source), self.batch_size) * self.batch_size
        return grain.MapDataset.range(len(self.source)).seed(self.seed).shuffle()[:whole].repeat()

    def everywhere(self, make: Callable[[int, np.random.Generator], Any]) -> grain.MapDataset:
        """``make(place, rng)`` at each place, with the random numbers of the place."""
        return grain.MapDataset.range(sys.maxsize).seed(self.seed).random_map(make)

    @cached_property
    def examples(self) -> grain.MapDataset:
        """The `Example` at each place."""
        return self.everywhere(partial(example, self))

    def batch(self, step: int) -> tuple[Batch, list[str]]:
        """This shard's part of a batch, and what was unreadable on the way."""
        first = step * self.batch_size + self.shard[0] * self.share
        return _filled(map(self.examples.__getitem__, range(first, first + self.share)), self.share, self.size)


def _filled(examples: Iterable[Example], count: int, size: Size) -> tuple[Batch, list[str]]:
    """A batch made in place: new memory costs as much as a copy, and that of a single image is used again."""
    images, labels = np.empty((count, *size, 3), np.uint8), np.empty(count, np.int32)
    unreadable: list[str] = []
    for row, one in enumerate(examples):
        images[row], labels[row] = one.image, one.label
        unreadable += one.unreadable
    return (images, labels), unreadable


def train_batches(
    source: Source,
    batch_size: int,
    size: Size,
    seed: int,
    start_step: int,
    stop_step: int,
    crop: Crop,
    flip: bool = True,
    threads: int = 8,
    shard: tuple[int, int] = (0, 1),
    corrupt_share: float = 0.001,
) -> Generator[Batch, None, None]:
    """Batches of steps ``start_step`` to ``stop_step`` - 1: uint8 images [B, *size, 3] and int32 labels [B].

    Args:
        batch_size: images of a step over all shards; B is this shard's part of them.
        crop: one of `plq.data.crops.CROPS`, or any function like them.
        shard: (index, count) of this process.
        corrupt_share: how many of the records seen may be unreadable. Such a record is replaced by the next readable
            one in order and named in a warning.
    Raises UserError for more of them, for a damaged file, and for a batch that the set or the shards do not allow.
    Closing the iterator ends its threads. Each of them makes a batch of its own: at most ``threads`` + 1 (but 3, if
    that is more) are in memory.
    """
    if not 0 <= corrupt_share <= 1:
        raise UserError(f"data.corrupt_share={corrupt_share}: allowed 0 to 1")
    if threads < 1:
        raise UserError(f"data.threads={threads}: allowed 1 or more")
    plan = Plan(source, batch_size, size, seed, crop, flip, shard)
    return _stream(plan, range(start_step, stop_step), threads, Tally(corrupt_share))


def _stream(plan: Plan, steps: range, threads: int, tally: "Tally") -> Generator[Batch, None, None]:
    with closing(prefetch(plan.batch, steps.start, steps.stop, threads, max(AHEAD, threads))) as batches:
        for batch, unreadable in batches:
            tally.count(plan.share, unreadable)
            yield batch


def example(plan: Plan, place: int, rng: np.random.Generator) -> Example:
    """The record that belongs here, or, if it is unreadable, the next readable one in the order of the epochs.

    Raises UserError if there is none among the next hundred.
    """
    unreadable: list[str] = []
    choose = lambda height, width: plan.crop(rng, height, width, plan.size)
    for follower in range(place, place + IN_A_ROW):
        index = plan.records[follower]
        data, label = plan.source[index]
        try:
            image = decode_crop(data, plan.source.where(index), plan.size, choose, plan.source.exif)
        except UserError as error:
            unreadable.append(str(error))
            continue
        return Example(flip(rng, image) if plan.flip else image, label, unreadable)
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


def center_crops(
    source: Source, batch_size: int, size: Size, threads: int = 8, rows: slice = ALL
) -> Generator[Batch, None, None]:
    """The middle of every record in order, in batches like those of `train_batches`; the last one may be smaller.

    ``rows``: which of each batch, from `plq.data.order.shard_rows`. Raises UserError for a record that cannot be read.
    """

    def one(index: int) -> Example:
        data, label = source[index]
        middle = partial(center_box, size=size)
        return Example(decode_crop(data, source.where(index), size, middle, source.exif), label, [])

    def batch(number: int) -> Batch:
        indices = range(len(source))[number * batch_size : (number + 1) * batch_size][rows]
        return _filled(map(one, indices), len(indices), size)[0]

    return prefetch(batch, 0, -(-len(source) // batch_size), threads, max(AHEAD, threads))
