"""Where a run's batches come from: arrays in memory, or records read and cropped as they are needed."""

import dataclasses
from collections.abc import Generator, Iterator

import numpy as np

from plq.data.crops import CROPS
from plq.data.order import batch_indices
from plq.data.records import middles, train_batches
from plq.data.sets import Split
from plq.data.source import RecordSource
from plq.data.stream import MaskedBatch, eval_batches, filled_up, prefetch

Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ArrayFeed:
    """A small set, whole in memory; cropping and flipping are left to the training step."""

    split: Split
    batch_size: int
    seed: int

    def __len__(self) -> int:
        return len(self.split.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.split.images.shape[1:]
        return height, width, channels

    def batch(self, step: int) -> Batch:
        """uint8 images [batch, height, width, channels] and int32 labels [batch] of a training step."""
        chosen = batch_indices(self.seed, step, len(self), self.batch_size)
        return self.split.images[chosen], self.split.labels[chosen]

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Those of the steps from ``start`` up to ``stop``, made ahead of their use."""
        return prefetch(self.batch, start, stop)

    def in_order(self) -> Iterator[MaskedBatch]:
        """Every image once: (images, labels, mask), the last batch filled up with images of mask 0."""
        return eval_batches(self.split, self.batch_size)


@dataclasses.dataclass(frozen=True)
class RecordFeed:
    """A large set of photographs, read from its files; ``crop`` is a name from `CROPS`."""

    source: RecordSource
    batch_size: int
    seed: int
    size: int
    crop: str
    flip: bool
    threads: int
    corrupt_share: float

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.size, self.size, 3

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """As `ArrayFeed.batches`; cropped and flipped at random."""
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
            corrupt_share=self.corrupt_share,
        )

    def in_order(self) -> Iterator[MaskedBatch]:
        """As `ArrayFeed.in_order`; the middle of each image."""
        for images, labels in middles(self.source, self.batch_size, self.size, self.threads):
            yield filled_up(images, labels, self.batch_size)


Feed = ArrayFeed | RecordFeed
