"""Labels of pictures from a CSV file with the header ``file,label`` or ``file,label,split``."""

import csv
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from plq.data.folder_layout import Labelled, class_name, split_name
from plq.data.picture_files import PictureFile, picture_file
from plq.errors import UserError, nearest
from plq.storage.paths import path_of

COLUMNS = ("file", "label", "split")


class Row(NamedTuple):
    """A row of the file, and the number of its line."""

    line: int
    file: str
    label: str
    split: str


def label_path(labels: str, root: Path) -> Path:
    """The file: a relative path is looked for in the working folder, then in ``root``."""
    path = path_of(labels)
    return root / path if not path.exists() and (root / path).exists() else path


def labelled_by(path: Path, root: Path) -> tuple[list[Labelled], tuple[str, ...]]:
    """The files that a CSV file names, with label and split ("train" where it has no such column); and the classes.

    Raises UserError, naming the line, for a file that is not below ``root`` or is named twice, an empty label, and an
    unknown split.
    """
    lines: dict[str, int] = {}
    found = []
    for row in _rows(path):
        where = f"data.labels={path}, line {row.line}"
        file = _file(row.file, root, where)
        if file.name in lines:
            raise UserError(f"{where}: {row.file} is in line {lines[file.name]} too, allowed once")
        lines[file.name] = row.line
        if not row.label:
            raise UserError(f"{where}: {row.file} has an empty label")
        found.append(Labelled(file, split_name(row.split, where), class_name(row.label)))
    if not found:
        raise UserError(f"data.labels={path}: has no rows below its header")
    return found, tuple(sorted({one.label for one in found}))


def _rows(path: Path) -> Iterator[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"data.labels={path}: cannot be read ({error.strerror})") from error
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _require_header(header, path)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(header, cells, reader.line_num, path)
    except csv.Error as error:
        raise UserError(f"data.labels={path}, line {reader.line_num}: not readable CSV ({error})") from error


def _require_header(header: list[str], path: Path) -> None:
    missing = [name for name in COLUMNS[:2] if name not in header]
    if missing or len(set(header)) < len(header):
        found = f"its first line is {','.join(header)[:100]!r}"
        raise UserError(f"data.labels={path}: {found}, allowed file,label or file,label,split")
    other = next((name for name in header if name not in COLUMNS), None)
    if other is not None:
        raise UserError(f"data.labels={path}: column {other!r}: unknown; {nearest(other, COLUMNS)}")


def _row(header: list[str], cells: list[str], line: int, path: Path) -> Row:
    if len(cells) != len(header):
        raise UserError(f"data.labels={path}, line {line}: found {len(cells)} cells, allowed {len(header)}")
    values = {"split": "train", **dict(zip(header, map(str.strip, cells), strict=True))}
    return Row(line, values["file"], values["label"], values["split"])


def _file(given: str, root: Path, where: str) -> PictureFile:
    name = posixpath.normpath(given) if given else ""
    if not name or name == "." or name.startswith(("/", "../")) or name == "..":
        raise UserError(f"{where}: file {given!r}, allowed a path below data.data_dir={root}")
    try:
        return picture_file(name, os.stat(root / name))
    except FileNotFoundError as error:
        if os.path.lexists(root / name):
            return picture_file(name, None)  # a link that leads nowhere: unreadable
        raise UserError(f"{where}: {given} is not in data.data_dir={root}") from error
    except ValueError as error:
        raise UserError(f"{where}: file {given!r} holds a null character") from error
    except OSError as error:
        raise UserError(f"{where}: {given} cannot be reached ({error.strerror})") from error
