"""Prepared TFDS data sets on disk, read without TensorFlow."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from plq.data.images import Size, open_image, pixels, resize
from plq.data.labels import require_labels
from plq.errors import UserError, nearest
from plq.storage.paths import path_of

VERSION = re.compile(r"\d+\.\d+\.\d+$")
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
        raise UserError(f"{versions[-1]}: not a readable data set ({_first_line(error)})") from error
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
    try:
        parts = [builder.info.splits[part.strip()].num_examples for part in split.split("+")]
    except (KeyError, ValueError, AssertionError) as error:
        sizes = ", ".join(f"{name} ({size:,})" for name, size in split_sizes(builder).items())
        found = f"split {split!r} of {builder.name}: {_first_line(error)}"
        raise UserError(f"{found} Splits there: {sizes}; see data.train_split, data.test_split") from error
    if min(parts) < 0:
        raise UserError(f"split {split!r} of {builder.name}: runs backwards, allowed [FROM:TO] with FROM before TO")
    if sum(parts) == 0:
        raise UserError(f"split {split!r} of {builder.name}: is empty, allowed 1 example or more")
    return sum(parts)


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


def read_arrays(builder: Any, split: str, size: Size | None) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, uint8 [N, *size, channels] (size None: as they are), and int32 labels [N].

    Raises UserError for a damaged or missing file, for a label that is no class, and for images of unequal size while
    size is None.
    """
    channels = image_shape(builder)[2]
    examples = split_examples(builder, split)
    decode = lambda item: _decode(item[1]["image"], f"{builder.name} {split} record {item[0]}", channels, size)
    images: np.ndarray | None = None
    labels = np.empty(examples, np.int64)
    with ThreadPoolExecutor() as pool:
        for start, records in _chunks(builder, split, examples):
            decoded = list(pool.map(decode, enumerate(records, start)))
            if images is None:
                images = np.empty((examples, *decoded[0].shape), np.uint8)
            _require_shape(builder.name, images.shape[1:], decoded)
            images[start : start + len(decoded)] = decoded
            labels[start : start + len(decoded)] = [record["label"] for record in records]
    assert images is not None, "split_examples refuses an empty split"
    require_labels(labels, len(class_names(builder)), f"split {split!r} of {builder.name}")
    return images, labels.astype(np.int32)


def _chunks(builder: Any, split: str, examples: int):
    try:
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        for start in range(0, examples, CHUNK):
            yield start, source.__getitems__(list(range(start, min(start + CHUNK, examples))))
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise UserError(f"{builder.data_path}: split {split} cannot be read ({_first_line(error)})") from error


def _decode(data: bytes, source: str, channels: int, size: Size | None) -> np.ndarray:
    image = pixels(open_image(data, source), channels)
    return resize(image, size) if size else image


def _require_shape(name: str, shape: tuple[int, ...], images: list[np.ndarray]) -> None:
    other = next((image.shape for image in images if image.shape != shape), None)
    if other:
        raise UserError(f"data.name={name}: images of {shape} and {other}; set data.image_size to bring them to one")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
