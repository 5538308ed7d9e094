"""Writes a model in another format and runs it: ``plq export --format onnx --model DIR --out model.onnx``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plq.cli.common import Parser, add_network, arguments, local_path, path_or_address
from plq.errors import UserError
from plq.storage.address import named
from plq.storage.output import require_apart
from plq.storage.staging import staged_output as sent

if TYPE_CHECKING:
    import numpy as np

    from plq.exporters.formats import Export
    from plq.exporters.source import Source


def parser() -> Parser:
    """The arguments."""
    made = arguments("export", "Write a model as ONNX, QONNX, StableHLO or C, and check the file by running it.")
    made.add_argument("--format", required=True, choices=["onnx", "qonnx", "stablehlo", "c"], help="of the file")
    made.add_argument(
        "--model", type=path_or_address, required=True, help="a frozen model, or a stripped model's folder"
    )
    made.add_argument("--out", type=path_or_address, required=True, help="the file to write; of c, the folder")
    add_network(made, "a stripped model")
    made.add_argument("--with_preprocessing", action="store_true", help="the file takes uint8 pixels, channels last")
    fast = "onnx: integer kernels also for layers in which they take a step one sum early or late"
    made.add_argument("--fast", action="store_true", help=fast)
    made.add_argument("--name", default="", help="c: what all names begin with (default: model)")
    made.add_argument("--images", type=local_path, nargs="+", default=[], help="to check on (default: the test images)")
    made.add_argument("--convert", action="store_true", help="bring --images to the model's number of channels")
    made.add_argument("--data_dir", default="", help="as data.data_dir (default: as in training, else $TFDS_DATA_DIR)")
    made.add_argument("--count", type=int, default=1000, help="how many test images to check on (default: 1000)")
    made.add_argument("--unchecked", action="store_true", help="write the file even without images to check on")
    return made


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments, checked. Raises UserError for whatever is wrong with them."""
    given = parser().parse_args(argv)
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
    if given.format == "c" and not isinstance(given.out, Path):
        raise UserError(f"--out {given.out}: allowed a folder on this machine with --format c")
    return given


def check_out(given: argparse.Namespace, out: Path) -> None:
    """Raise UserError unless ``out``, which is --out or the copy of what is at that address, can be written."""
    from plq.exporters.write import require_target

    inputs = {"--model": given.model, **{f"--images {image}": image for image in given.images}}
    require_apart(given.out, inputs)
    require_target(given.format, given.name or "model", out, inputs if out == given.out else {})


def images_to_check(source: Source, given: argparse.Namespace) -> np.ndarray | None:
    """uint8 [count, *image_shape]; None if there are none and that was allowed. Raises UserError otherwise."""
    from plq.exporters.source import image_files, test_images

    if given.images:
        return image_files(source.frozen, given.images, given.convert)
    try:
        return test_images(source.frozen, given.data_dir, given.count)
    except UserError as error:
        if given.unchecked:
            return None
        how = "give --images, or --unchecked to write it all the same"
        raise UserError(f"could not check the export, nothing is written: {error}; {how}") from error


def made(given: argparse.Namespace, source: Source, images: np.ndarray | None) -> Export:
    """The export in memory."""
    from plq.exporters.formats import EXPORTS

    options: dict[str, Any] = {"fast": True} if given.fast else {}
    if given.format == "c":
        options = {"name": given.name or "model", "images": images}
    return EXPORTS[given.format](source.frozen, given.with_preprocessing, **options)


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parse(argv)
    from plq.exporters.source import open_source
    from plq.exporters.write import write_checked

    with sent(given.out) as out:
        check_out(given, out)
        source = open_source(given.model, given.network)
        images = images_to_check(source, given)
        if images is not None:
            source.require_agreement(images)
        lines = write_checked(made(given, source, images), source.frozen, out, images)
    print(named("\n".join(lines)))
