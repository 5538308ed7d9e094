"""Writes a model in another format and runs it: ``python -m plq.export --format onnx --model DIR --out model.onnx``."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from plq.cli.common import arguments, local_path, path_or_address, run
from plq.errors import UserError, printable
from plq.exporters.check import compare
from plq.exporters.formats import FOLDERS, FORMATS, Export, is_export
from plq.exporters.source import Source, image_files, open_source, test_images
from plq.report.table import human_bytes
from plq.storage.address import named
from plq.storage.output import make_folder_of, replacing, require_apart, require_file, writing
from plq.storage.staging import staged_output as sent


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments. Raises UserError for whatever is wrong with them."""
    parser = arguments(
        "plq.exporters", "Write a model as ONNX, QONNX, StableHLO or C, and check the file by running it."
    )
    parser.add_argument("--format", required=True, choices=[*FORMATS, *FOLDERS])
    parser.add_argument(
        "--model", type=path_or_address, required=True, help="a frozen model, or a stripped model's folder"
    )
    parser.add_argument("--out", type=path_or_address, required=True, help="the file to write; of c, the folder")
    parser.add_argument("--with_preprocessing", action="store_true", help="the file takes uint8 pixels, channels last")
    fast = "onnx: integer kernels also for layers in which they take a step one sum early or late"
    parser.add_argument("--fast", action="store_true", help=fast)
    parser.add_argument("--name", default="", help="c: what all names begin with (default: model)")
    parser.add_argument(
        "--images", type=local_path, nargs="+", default=[], help="to check on (default: the test images)"
    )
    parser.add_argument("--convert", action="store_true", help="bring --images to the model's number of channels")
    parser.add_argument("--data_dir", default="", help="of TFDS (default: as in training, else $TFDS_DATA_DIR)")
    parser.add_argument("--count", type=int, default=1000, help="how many test images to check on (default: 1000)")
    parser.add_argument("--unchecked", action="store_true", help="write the file even without images to check on")
    given = parser.parse_args(argv)
    if given.count < 1:
        raise UserError(f"--count {given.count}: allowed 1 or more")
    if given.fast and given.format != "onnx":
        raise UserError(f"--fast: has no effect with --format {given.format}")
    if given.images and given.data_dir:
        raise UserError("--data_dir: has no effect with --images")
    if given.convert and not given.images:
        raise UserError("--convert: has no effect without --images")
    if given.name and given.format != "c":
        raise UserError(f"--name: has no effect with --format {given.format}")
    if given.format == "c":
        require_free(given)
    elif isinstance(given.out, Path):
        inputs = {"--model": given.model, **{f"--images {image}": image for image in given.images}}
        require_file(given.out, inputs, is_export, "an export of plq")
    return given


def require_free(given: argparse.Namespace) -> None:
    """Raise UserError unless --out can be a folder of C: nothing is there, or what an earlier export wrote."""
    if not isinstance(given.out, Path):
        raise UserError(f"--out {given.out}: allowed a folder on this machine with --format c")
    if given.out.exists() and not given.out.is_dir():
        raise UserError(f"--out {given.out}: is a file, allowed a folder with --format c")
    require_apart(given.out, {"--model": given.model, **{f"--images {image}": image for image in given.images}})
    name = given.name or "model"
    for path in (given.out / file for file in (f"{name}.c", f"{name}.h", f"{name}_test.c", "Makefile")):
        if path.exists() and "Written by plq" not in path.read_text("utf-8", "replace")[:40]:
            raise UserError(f"{path}: is there and was not written by this program; choose another --out or --name")


def images_to_check(source: Source, given: argparse.Namespace) -> np.ndarray | None:
    """uint8 [count, *image_shape]; None if there are none and that was allowed. Raises UserError otherwise."""
    if given.images:
        return image_files(source.frozen, given.images, given.convert)
    try:
        return test_images(source.frozen, given.data_dir, given.count)
    except UserError as error:
        if given.unchecked:
            return None
        how = "give --images, or --unchecked to write it all the same"
        raise UserError(f"could not check the export, nothing is written: {error}; {how}") from error


def write_checked(given: argparse.Namespace, source: Source, images: np.ndarray | None) -> list[str]:
    """Write the file, run it, and keep it if it does what the model does. Returns lines about it."""
    options: dict[str, Any] = {"fast": True} if given.fast else {}
    if given.format == "c":
        options = {"name": given.name or "model", "images": images}
    export = {**FORMATS, **FOLDERS}[given.format](source.frozen, given.with_preprocessing, **options)
    if export.files:
        return write_folder(given.out, source, export, images)
    make_folder_of(given.out)
    with writing(given.out, "--out"), replacing(given.out) as temporary:
        temporary.write_bytes(export.data)
        verdict = "not checked: no images"
        if images is not None:
            verdict = verified(source, export, temporary, images)
    return [*export.notes, f"{printable(given.out)}: {human_bytes(len(export.data))}", verdict]


def write_folder(out: Path, source: Source, export: Export, images: np.ndarray | None) -> list[str]:
    """Write several files, run them, and keep them if they do what the model does. Returns lines about them."""
    make_folder_of(out)
    with writing(out, "--out"), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        temporary = Path(name)
        for file, text in export.files.items():
            (temporary / file).write_text(text, "utf-8")
        verdict = "not checked: no images" if images is None else verified(source, export, temporary, images)
        out.mkdir(exist_ok=True)
        for file in export.files:
            (temporary / file).replace(out / file)
    return [*export.notes, f"{printable(out)}: {', '.join(export.files)}", verdict]


def verified(source: Source, export: Export, path: Path, images: np.ndarray) -> str:
    """What the comparison found. Raises UserError, with what to do instead, if the file breaks its rule."""
    try:
        return str(compare(source.frozen, export.run(path), images))
    except UserError as error:
        raise UserError("; ".join(filter(None, [str(error), export.remedy]))) from error


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parse(argv)
    source = open_source(given.model)
    images = images_to_check(source, given)
    if images is not None:
        source.require_agreement(images)
    with sent(given.out) as given.out:
        lines = write_checked(given, source, images)
    print(named("\n".join(lines)))


if __name__ == "__main__":
    run(main)
