"""Which class and which split each picture of a folder belongs to, from the names of the folders it lies in.

DIR/train/CLASS/... and DIR/test/CLASS/..., or DIR/CLASS/... alone. Below CLASS folders may be nested.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from plq.data.picture_files import PictureFile, folders_of
from plq.errors import UserError, nearest, printable

HOLDOUT = 0.1  # share of the images that is tested on where no others are there for it
TRAIN, TEST, VALIDATION = "train", "test", "validation"
SPLIT_NAMES = {"train": TRAIN, "test": TEST, "validation": VALIDATION, "val": VALIDATION}


class Labelled(NamedTuple):
    """A picture with its split and the name of its class."""

    file: PictureFile
    split: str
    label: str


def class_name(text: str) -> str:
    """A class's name as it is shown and kept: composed Unicode, and what cannot be printed as an escape."""
    return printable(unicodedata.normalize("NFC", text))


def split_name(text: str, where: str) -> str:
    """The split of this name; "val" is "validation". Raises UserError, naming ``where``, for another one."""
    if text not in SPLIT_NAMES:
        raise UserError(f"{where}: split {text!r}: unknown; {nearest(text, SPLIT_NAMES)}")
    return SPLIT_NAMES[text]


def labelled_by_folders(root: Path, files: Iterable[PictureFile]) -> tuple[list[Labelled], tuple[str, ...]]:
    """The pictures that lie in a class folder, with split and class; and the classes, sorted.

    Raises UserError if the folders of ``root`` are neither splits nor classes, if two mean one split or class, and
    if a class is missing in a split.
    """
    splits = {name: SPLIT_NAMES[name] for name in folders_of(root)} if has_splits(root) else None
    if splits is None:
        classes = _classes(root, {TRAIN: root})
    elif {"val", "validation"} <= splits.keys():
        raise UserError(f"data.data_dir={root}: found both val and validation, allowed one of them")
    else:
        classes = _classes(root, {name: root / name for name in splits})
    return list(_labelled(files, splits)), classes


def _labelled(files: Iterable[PictureFile], splits: dict[str, str] | None) -> Iterator[Labelled]:
    """``splits``: the split by the name of its folder; None where the first folder is that of the class."""
    for file in files:
        folders = file.name.split("/")[:-1]
        if splits is None and folders:
            yield Labelled(file, TRAIN, class_name(folders[0]))
        elif splits is not None and len(folders) > 1:
            yield Labelled(file, splits[folders[0]], class_name(folders[1]))


def has_splits(root: Path) -> bool:
    """Whether the folders of ``root`` are splits; else they are classes.

    Raises UserError if some are splits and others are not. A class may be called train, or test, if there are other
    classes and it holds no folders.
    """
    names = folders_of(root)
    if not names:
        allowed = "allowed DIR/train/CLASS/..., DIR/CLASS/..., or data.labels=FILE.csv"
        raise UserError(f"data.data_dir={root}: found no folders in it, {allowed}")
    splits = [name for name in names if name in SPLIT_NAMES]
    others = [name for name in names if name not in SPLIT_NAMES]
    if TRAIN in splits and not others:
        return True
    if not splits or (others and all(_is_class(root / name) for name in splits)):
        return False
    if not others:
        raise UserError(f"data.data_dir={root}: found {', '.join(splits)} and no train, allowed one more folder train")
    found = f"found splits ({', '.join(splits)}) beside other folders ({', '.join(others[:5])})"
    raise UserError(f"data.data_dir={root}: {found}, allowed only splits or only classes")


def _is_class(folder: Path) -> bool:
    return not folders_of(folder)


def _classes(root: Path, folders: dict[str, Path]) -> tuple[str, ...]:
    """Their names, sorted. Raises UserError unless the folders of each split are the same classes."""
    classes = {name: _class_folders(folder) for name, folder in folders.items()}
    first = classes[TRAIN]
    for name, found in classes.items():
        if first - found:
            raise UserError(_unequal(root, TRAIN, name, first - found))
        if found - first:
            raise UserError(_unequal(root, name, TRAIN, found - first))
    return tuple(sorted(first))


def _class_folders(folder: Path) -> set[str]:
    names: set[str] = set()
    for name in map(class_name, folders_of(folder)):
        if name in names:
            raise UserError(f"{folder}: two folders of the class {name}, whose names differ in their Unicode form")
        names.add(name)
    if not names:
        raise UserError(f"{folder}: found no folders in it, allowed one for each class")
    return names


def _unequal(root: Path, there: str, not_there: str, names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names)[:5])
    return f"data.data_dir={root}: {there} has classes that {not_there} has not: {listed}; allowed the same in all"


def position(name: str) -> float:
    """A number of 0 up to 1 that the relative name of a file alone decides: its place in the order of a split."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def with_test(root: Path, found: list[Labelled], holdout: float) -> list[Labelled]:
    """The pictures, a share of them held back as a test split if they have none, chosen by `position`.

    Where there is no test but a validation split, that is the test split. Raises UserError if ``holdout`` is not its
    default and has no effect, or leaves nothing on one side.
    """
    splits = {one.split for one in found}
    if splits == {TRAIN, VALIDATION}:
        found = [one._replace(split=TEST) if one.split == VALIDATION else one for one in found]
    if splits != {TRAIN}:
        if holdout != HOLDOUT:
            why = f"has no effect, there are images to test on in {root}"
            raise UserError(f"data.holdout={holdout}: {why}; leave it at {HOLDOUT}")
        return found
    held = [one._replace(split=TEST) if position(one.file.name) < holdout else one for one in found]
    if len({one.split for one in held}) == 1:
        what = "none" if held[0].split == TRAIN else "all"
        raise UserError(f"data.holdout={holdout}: holds back {what} of the {len(held)} images in {root}")
    return held
