"""Where an export goes: looked at before any work, run there, and kept only if it does what the model does."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from plq.errors import UserError, printable
from plq.exporters.check import compare
from plq.exporters.formats import Export, is_export
from plq.report.table import human_bytes
from plq.runtime.frozen import FrozenModel
from plq.storage.output import make_folder_of, replacing, require_apart, require_file, writing


def require_target(format: str, name: str, out: Path, inputs: Mapping[str, object], option: str = "--out") -> None:
    """Raise UserError unless an export can be written to ``out``: nothing is there, or what an earlier export wrote.

    Args:
        name: of format "c", what its files are called. inputs: what is read, by the option that it was given as.
    """
    if format != "c":
        require_file(out, inputs, is_export, "an export of plq", option)
        return
    require_apart(out, inputs, option)
    if out.exists() and not out.is_dir():
        raise UserError(f"{option} {out}: is a file, allowed a folder with format c")
    for path in (out / file for file in (f"{name}.c", f"{name}.h", f"{name}_test.c", "Makefile")):
        if path.exists() and "Written by plq" not in path.read_text("utf-8", "replace")[:40]:
            raise UserError(f"{path}: is there and was not written by plq; choose another folder or name")


def write_checked(
    made: Export, model: FrozenModel, out: Path, images: np.ndarray | None, option: str = "--out"
) -> list[str]:
    """Write the file or the folder, run it, and keep it if it does what the model does. Returns lines about it.

    ``images``: to compare on, uint8 [count, *image_shape]; None: it is not run. Raises UserError, with what to do
    instead, if it breaks its rule.
    """
    make_folder_of(out)
    if made.files:
        return _write_folder(made, model, out, images, option)
    with writing(out, option), replacing(out) as temporary:
        temporary.write_bytes(made.data)
        verdict = _verdict(made, model, temporary, images)
    return [*made.notes, f"{printable(out)}: {human_bytes(len(made.data))}", verdict]


def _write_folder(made: Export, model: FrozenModel, out: Path, images: np.ndarray | None, option: str) -> list[str]:
    with writing(out, option), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        temporary = Path(name)
        for file, text in made.files.items():
            (temporary / file).write_text(text, "utf-8")
        verdict = _verdict(made, model, temporary, images)
        out.mkdir(exist_ok=True)
        for file in made.files:
            (temporary / file).replace(out / file)
    return [*made.notes, f"{printable(out)}: {', '.join(made.files)}", verdict]


def _verdict(made: Export, model: FrozenModel, path: Path, images: np.ndarray | None) -> str:
    if images is None:
        return "not checked: no images"
    try:
        return str(compare(model, made.run(path), images))
    except UserError as error:
        raise UserError("; ".join(filter(None, [str(error), made.remedy]))) from error
