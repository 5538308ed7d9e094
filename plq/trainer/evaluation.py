"""Logits, loss and accuracy over a whole split."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from plq.config.schema import Data
from plq.data.folder import FOLDER, ImageFolder
from plq.data.folder_opening import open_folder
from plq.data.images import size_of
from plq.data.labels import require_labels
from plq.data.loader import ArrayLoader, DataLoader, RecordLoader
from plq.data.sets import SetInfo, Split, describe, load_split
from plq.data.source import RecordSource, Source
from plq.errors import UserError
from plq.train.step import score


def all_logits(function: Callable[[np.ndarray], Any], feed: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Logits for each image of the feed, and its labels.

    ``function``: uint8 images, this process's rows of a batch -> logits of the whole batch. What fills up the last
    batch is at its end and is cut off.
    """
    logits, labels = [], []
    for images, given, _ in feed.eval_batches():
        logits.append(jax.device_get(function(images)))
        labels.append(given)
    everywhere = process_allgather(np.stack(labels))  # [processes, batches, rows]
    count = len(feed)
    return np.concatenate(logits)[:count], everywhere.swapaxes(0, 1).reshape(-1)[:count]


_score = jax.jit(score)


def evaluation(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean loss and accuracy. Raises UserError for labels that are no classes."""
    require_labels(labels, logits.shape[1], "evaluation")
    return {name: float(value) for name, value in _score(logits, labels).items()}


def set_info(data: Data) -> SetInfo:
    """What the config's image set holds. Raises UserError if it is not there."""
    return folder_of(data).info if data.name == FOLDER else describe(data.name, data.data_dir)


def folder_of(data: Data) -> ImageFolder:
    """The pictures that the config names. Raises UserError for whatever does not make up a set."""
    return open_folder(data.data_dir, data.labels, data.holdout, data.cache_dir)


def open_loader(data: Data, split: str, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> DataLoader:
    """The images of a split as the config has them, of each batch the rows of this process.

    Raises UserError for whatever is missing or does not fit.
    """
    if not data.crop:
        return ArrayLoader(_in_memory(data, split), data.batch_size, seed, shard)
    size = size_of(data.image_size)
    assert size is not None, "Data.check wants a size with a crop"
    fields = (size, data.crop, data.flip, data.threads, data.corrupt_share, shard)
    return RecordLoader(_one_by_one(data, split), data.batch_size, seed, *fields)


def _in_memory(data: Data, split: str) -> Split:
    if data.name == FOLDER:
        return _reported(data).load(split, size_of(data.image_size))
    return load_split(data.name, split, data.image_size, data.data_dir, data.cache_dir)


def _one_by_one(data: Data, split: str) -> Source:
    if data.name == "digits":
        raise UserError(f"data.crop={data.crop}: digits are read whole; leave data.crop empty")
    return _reported(data).source(split) if data.name == FOLDER else RecordSource(data.name, split, data.data_dir)


def _reported(data: Data) -> ImageFolder:
    folder = folder_of(data)
    folder.report(data.corrupt_share)
    return folder
