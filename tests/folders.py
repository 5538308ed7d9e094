"""Small folders of pictures, written by the tests."""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from plq.data.digits import load_digits
from plq.data.folder_layout import HOLDOUT
from plq.data.folder_opening import open_folder


def pixels(seed: int, mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Image.Image:
    """Width and height; smooth, so that what is lossy differs little."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8)).resize(size).convert(mode)


def save(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (9, 7), **options) -> Path:
    """A picture in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels(seed, mode, size).save(path, **options)
    return path


def encoded(seed: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels(seed).save(buffer, kind)
    return buffer.getvalue()


def write_classes(root: Path, classes=("ant", "bee"), count: int = 3, first: int = 0) -> Path:
    """``count`` PNGs in the folder of each class, no two alike."""
    for label, name in enumerate(classes):
        for index in range(count):
            save(root / name / f"{index}.png", first + label * count + index)
    return root


def write_splits(root: Path, test: str = "test", count: int = 3) -> Path:
    """Two classes in train and in the split of this name."""
    write_classes(root / "train", count=count)
    write_classes(root / test, count=count, first=1000)
    return root


def write_digits(root: Path, train: int, test: int) -> Path:
    """The first digits of the embedded set, grey PNGs of 8x8, in DIR/SPLIT/DIGIT/."""
    images, labels = load_digits()
    for index in range(train + test):
        folder = root / ("train" if index < train else "test") / str(labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index, :, :, 0]).save(folder / f"{index}.png")
    return root


def opened(root: Path, labels: object = "", holdout: float = HOLDOUT, cache: Path | None = None):
    """The folder, its facts kept beside it."""
    return open_folder(str(root), str(labels), holdout, str(cache or root.parent / "cache"))


def names(folder, split: str) -> set[str]:
    return {picture.name for picture in folder.chosen(split)}


def orientation(number: int) -> Image.Exif:
    """EXIF data of an image that is turned like this."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    return exif
