"""Where a run's batches come from: arrays in memory, or records read and cropped as they are needed.

``batch_size`` counts the images of all processes. ``shard`` is (index, count) of this one: it makes its rows of every
batch and no others, and which images and which random numbers these are does not depend on the number of processes.
"""

import dataclasses
from collections.abc import Generator, Iterator

import numpy as np

from plq.data.crops import CROPS
from plq.data.images import Size
from plq.data.order import batch_indices, shard_rows
from plq.data.prefetch import MaskedBatch, pad_batch, padded_batches, prefetch
from plq.data.records import center_crops, train_batches
from plq.data.sets import Split
from plq.data.source import Source

Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ArrayLoader:
    """A small set, whole in memory; cropping and flipping are left to the training step."""

    split: Split
    batch_size: int
    seed: int
    shard: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return len(self.split.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.split.images.shape[1:]
        return height, width, channels

    def batch(self, step: int) -> Batch:
        """uint8 images [rows, height, width, channels] and int32 labels [rows] of a training step."""
        chosen = batch_indices(self.seed, step, len(self), self.batch_size)[shard_rows(self.batch_size, self.shard)]
        return self.split.images[chosen], self.split.labels[chosen]

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Those of the steps from ``start`` up to ``stop``, made ahead of their use."""
        return prefetch(self.batch, start, stop)

    def eval_batches(self) -> Iterator[MaskedBatch]:
        """Every image once: (images, labels, mask), the last batch filled up with images of mask 0."""
        rows = shard_rows(self.batch_size, self.shard)
        for batch in padded_batches(self.split, self.batch_size):
            images, labels, mask = (part[rows] for part in batch)
            yield images, labels, mask


@dataclasses.dataclass(frozen=True)
class RecordLoader:
    """A large set of photographs, read from its files; ``crop`` is a name from `CROPS`."""

    source: Source
    batch_size: int
    seed: int
    size: Size
    crop: str
    flip: bool
    threads: int
    corrupt_share: float
    shard: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return *self.size, 3

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """As `ArrayLoader.batches`; cropped and flipped at random."""
        return train_batches(
            self.source,
            self.batch_size,
            self.size,
            self.seed,
            start,
            stop,
            CROPS[self.crop],
            self.flip,
            self.threads,
            self.shard,
            self.corrupt_share,
        )

    def eval_batches(self) -> Iterator[MaskedBatch]:
        """As `ArrayLoader.padded_batches`; the middle of each image."""
        rows = shard_rows(self.batch_size, self.shard)
        for images, labels in center_crops(self.source, self.batch_size, self.size, self.threads, rows):
            yield pad_batch(images, labels, rows.stop - rows.start)


DataLoader = ArrayLoader | RecordLoader
