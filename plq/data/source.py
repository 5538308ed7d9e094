"""Random access to the records of a prepared TFDS split, images still encoded, without TensorFlow."""

import resource
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from plq.data.labels import require_labels
from plq.data.prepared import class_names, image_shape, is_exif_turned, open_set, split_examples
from plq.errors import UserError, first_line

LOOKED_AT = 64  # labels looked at before anything else is read: those of all records would take a whole reading


class Source(Protocol):
    """``source[i]``: the encoded image and the label of example i. Any number of threads may read at a time."""

    @property
    def exif(self) -> bool:
        """Whether images are turned as their EXIF data say."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Raises UserError if the file is damaged or missing, or the label is no class."""

    def where(self, index: int) -> str:
        """An example's name in messages."""


class RecordSource:
    """The `Source` of a split of a prepared TFDS set."""

    def __init__(self, name: str, split: str, data_dir: str = "") -> None:
        """``split``: TFDS syntax.

        Raises UserError if set or split are not there, are not colour images, or have no labels, as far as a few
        records tell.
        """
        builder = open_set(name, data_dir)
        if image_shape(builder)[2] != 3:
            raise UserError(f"data.name={name}: grey images, allowed 3 channels for reading record by record")
        self.name, self.split, self.folder = name, split, str(builder.data_path)
        self.class_names, self.exif = class_names(builder), is_exif_turned(builder)
        self._length = split_examples(builder, split)
        _allow_open_files(sum(info.num_shards for info in builder.info.splits.values()))
        try:
            self._records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"{self.folder}: split {split} cannot be read ({error})") from error
        places = np.unique(np.linspace(0, self._length - 1, LOOKED_AT).astype(int)).tolist()
        labels = np.array([int(self._record(index)["label"]) for index in places])
        require_labels(labels, len(self.class_names), f"{name} {split} ({len(places)} records looked at)")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Raises UserError if the file is damaged or missing, or the label is no class."""
        record = self._record(index)
        label = int(record["label"])
        if not 0 <= label < len(self.class_names):
            raise UserError(f"{self.where(index)}: its label is {label}, allowed 0..{len(self.class_names) - 1}")
        return record["image"], label

    def _record(self, index: int) -> dict[str, Any]:
        try:
            return self._records[index]
        except (RuntimeError, OSError, ValueError, IndexError) as error:
            raise UserError(f"{self.folder}: {self.where(index)} cannot be read ({first_line(error)})") from error

    def where(self, index: int) -> str:
        """A record's name in messages."""
        return f"{self.name} {self.split} record {index}"


def _allow_open_files(shards: int) -> None:
    """Every file of a set stays open: ImageNet's 1,024 are as many as many systems allow at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shards + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
