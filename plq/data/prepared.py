"""Prepared TFDS data sets on disk, read without TensorFlow."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from plq.data.arrays import Encoded, stacked
from plq.data.images import Size, open_image, photograph, pixels, resize
from plq.data.labels import require_labels
from plq.data.splits import spans
from plq.errors import UserError, first_line, nearest
from plq.storage.paths import path_of

VERSION = re.compile(r"\d+\.\d+\.\d+$")
EXIF = "exif"  # in a set's metadata: whether its images are turned as their EXIF data say
CHUNK = 1000  # records read and decoded at a time


def data_directory(data_dir: str) -> Path:
    """``data_dir``, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return path_of(data_dir or os.environ.get("TFDS_DATA_DIR", "") or "~/tensorflow_datasets")


def open_set(name: str, data_dir: str) -> Any:
    """The TFDS builder of the newest prepared version. Raises UserError if it is not there or unreadable."""
    root = data_directory(data_dir)
    if root.exists() and not root.is_dir():
        raise UserError(f"data.data_dir={root}: is a file, allowed the folder that holds {name}")
    versions = sorted(_versions(root / name), key=lambda path: [int(part) for part in path.name.split(".")])
    if not versions:
        raise _not_found(name, root)
    try:
        builder = tfds.builder_from_directory(str(versions[-1]))
    except (OSError, ValueError, KeyError, ParseError, tfds.core.dataset_info.DatasetInfoFileError) as error:
        raise UserError(f"{versions[-1]}: not a readable data set ({first_line(error)})") from error
    _check_format(name, builder)
    return builder


def _not_found(name: str, root: Path) -> UserError:
    """Where else the set is, or how to prepare it."""
    found = f"data.name={name}: not found in {root}"
    elsewhere = next((folder for folder in _around(root) if name and _versions(folder / name)), None)
    if elsewhere is not None:
        return UserError(f"{found}, but in {elsewhere}; set data.data_dir or TFDS_DATA_DIR to that folder")
    present = _present(root)
    hint = f"; there: {nearest(name, present)}" if present else ""
    how = f"prepare it with `tfds build {name} --file_format=array_record`, or set TFDS_DATA_DIR or data.data_dir"
    return UserError(f"{found}{hint}; {how}")


def _around(root: Path) -> Iterator[Path]:
    """Folders that may be meant by one that is up to three levels too deep, or up to two too shallow."""
    yield from root.absolute().parents[:3]
    for pattern in ("*", "*/*"):
        yield from sorted(path for path in root.glob(pattern) if path.is_dir())


def _versions(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if VERSION.match(path.name) and (path / "dataset_info.json").is_file()]


def _present(root: Path) -> list[str]:
    depths = ("*/*", "*/*/*")  # name/version, name/config/version
    infos = (info for depth in depths for info in root.glob(f"{depth}/dataset_info.json"))
    found = {info.parent.parent.relative_to(root) for info in infos}
    return sorted(str(path) for path in found)


def _check_format(name: str, builder: Any) -> None:
    found = builder.info.file_format.value
    if found != "array_record":
        how = f"`tfds build {name} --file_format=array_record`"
        raise UserError(f"data.name={name}: prepared as {found}, allowed array_record; prepare it with {how}")
    features = builder.info.features if isinstance(builder.info.features, tfds.features.FeaturesDict) else {}
    for feature, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if feature not in features:
            raise UserError(f"data.name={name}: has no feature {feature}; it has {', '.join(features) or 'no names'}")
        if not isinstance(features[feature], kind):
            found = type(features[feature]).__name__
            raise UserError(f"data.name={name}: {feature} is {found}, allowed {kind.__name__}")
    dtype = np.dtype(features["image"].np_dtype)
    if dtype != np.uint8:
        raise UserError(f"data.name={name}: images are {dtype}, allowed uint8; prepare the set with 8 bits per channel")
    if not features["label"].num_classes:
        raise UserError(f"data.name={name}: its label does not say how many classes there are")


def split_sizes(builder: Any) -> dict[str, int]:
    """Number of examples of each split."""
    return {name: info.num_examples for name, info in builder.info.splits.items()}


def split_examples(builder: Any, split: str) -> int:
    """Number of examples of a split in TFDS syntax. Raises UserError if it is unknown or empty."""
    return sum(span.stop - span.start for span in spans(builder.name, split_sizes(builder), split))


def image_shape(builder: Any) -> tuple[int | None, int | None, int]:
    """[height, width, channels]; None where it varies. Raises UserError unless 1 or 3 channels."""
    height, width, channels = builder.info.features["image"].shape
    if channels not in (1, 3):
        raise UserError(f"data.name={builder.name}: images of {channels} channels, allowed 1 or 3")
    return height, width, channels


def class_names(builder: Any) -> tuple[str, ...]:
    """The label feature's names."""
    label = builder.info.features["label"]
    return tuple(label.int2str(index) for index in range(label.num_classes))


def is_exif_turned(builder: Any) -> bool:
    """Whether the set's images are turned as their EXIF data say: if its metadata say so."""
    return bool((builder.info.metadata or {}).get(EXIF))


def read_arrays(builder: Any, split: str, size: Size | None) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, uint8 [N, *size, channels] (size None: as they are), and int32 labels [N].

    Raises UserError for a damaged or missing file, for a label that is no class, and for images of unequal size while
    size is None.
    """
    channels, turn = image_shape(builder)[2], is_exif_turned(builder)
    examples = split_examples(builder, split)

    def decode(data: bytes, source: str) -> np.ndarray:
        image = photograph(data, source, channels) if turn else pixels(open_image(data, source), channels)
        return resize(image, size) if size else image

    images, labels = stacked(builder.name, examples, _chunks(builder, split, examples), decode)
    require_labels(labels, len(class_names(builder)), f"split {split!r} of {builder.name}")
    return images, labels.astype(np.int32)


def _chunks(builder: Any, split: str, examples: int) -> Iterator[list[Encoded]]:
    try:
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        for start in range(0, examples, CHUNK):
            records = source.__getitems__(list(range(start, min(start + CHUNK, examples))))
            where = lambda index: f"{builder.name} {split} record {index}"
            yield [(record["image"], record["label"], where(index)) for index, record in enumerate(records, start)]
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise UserError(f"{builder.data_path}: split {split} cannot be read ({first_line(error)})") from error
