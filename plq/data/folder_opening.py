"""How a folder of pictures becomes a set: data.name=folder."""

from collections import Counter
from pathlib import Path

from plq.data.folder import FOLDER, ImageFolder, Picture
from plq.data.folder_layout import TEST, TRAIN, VALIDATION, Labelled, labelled_by_folders, position, with_test
from plq.data.label_file import label_path, labelled_by
from plq.data.picture_files import find_pictures
from plq.data.survey import Facts, survey
from plq.errors import UserError
from plq.storage.cache_dir import cache_directory
from plq.storage.paths import path_of

OUTSIDE, UNLABELLED = "pictures in no class folder", "pictures without a label"


def open_folder(data_dir: str, labels: str, holdout: float, cache_dir: str = "") -> ImageFolder:
    """The pictures of a folder, each looked at once.

    Args:
        labels: a CSV file that names files and labels; empty: the names of the folders say the classes.
        holdout: the share of the images that is held back as the test split where there is none.
    Raises UserError for whatever does not make up a set.
    """
    root = _root(data_dir)
    files, ignored = find_pictures(root)
    labelled, classes = labelled_by(label_path(labels, root), root) if labels else labelled_by_folders(root, files)
    left_out = {file.name for file in files} - {one.file.name for one in labelled}
    if left_out:
        ignored[UNLABELLED if labels else OUTSIDE] += len(left_out)
    labelled, cache = with_test(root, sorted(labelled, key=_order), holdout), cache_directory(cache_dir)
    facts = survey(root, [one.file for one in labelled], cache)
    splits, unreadable = _assembled(root, labelled, classes, facts)
    return ImageFolder(root, classes, splits, unreadable, ignored, cache)


def _root(data_dir: str) -> Path:
    if not data_dir:
        how = "set it, or give --data_dir where a command has that"
        raise UserError(f"data.data_dir is empty: data.name={FOLDER} needs the folder of the images; {how}")
    root = path_of(data_dir)
    if not root.is_dir():
        raise UserError(f"data.data_dir={root}: {'is a file' if root.exists() else 'not there'}, allowed a folder")
    return root


def _order(one: Labelled) -> tuple[float, str]:
    return position(one.file.name), one.file.name


def _assembled(
    root: Path, labelled: list[Labelled], classes: tuple[str, ...], facts: list[Facts]
) -> tuple[dict[str, tuple[Picture, ...]], tuple[str, ...]]:
    """The readable pictures by split, and what is wrong with the others."""
    label_of = {name: label for label, name in enumerate(classes)}
    splits: dict[str, list[Picture]] = {name: [] for name in (TRAIN, TEST, VALIDATION)}
    for one, fact in zip(labelled, facts, strict=True):
        if not fact.error:
            splits[one.split].append(Picture(one.file.name, label_of[one.label], fact))
    unreadable = tuple(fact.error for fact in facts if fact.error)
    _require_examples(root, classes, splits[TRAIN], unreadable)
    return {name: tuple(pictures) for name, pictures in splits.items() if pictures}, unreadable


def _require_examples(root: Path, classes: tuple[str, ...], train: list[Picture], unreadable: tuple[str, ...]) -> None:
    """Raise UserError unless there are two classes or more, and a readable training image of each."""
    counts = Counter(picture.label for picture in train)
    without = [name for label, name in enumerate(classes) if not counts[label]]
    if without:
        broken = f" ({len(unreadable):,} cannot be read, the first: {unreadable[0]})" if unreadable else ""
        raise UserError(f"data.data_dir={root}: no image to train on of {', '.join(without[:5])}{broken}")
    if len(classes) < 2:
        raise UserError(f"data.data_dir={root}: found {len(classes)} classes with images, allowed 2 or more")
