"""Export from Python: a model written in another format and run once, or nothing written."""

from pathlib import Path
from typing import Any

import numpy as np

from plq.checks import shown
from plq.data.resize import resize_batch
from plq.errors import UserError, nearest
from plq.exporters.c.folder import check_name
from plq.exporters.formats import EXPORTS
from plq.exporters.source import Source, open_source
from plq.exporters.write import require_target, write_checked
from plq.runtime.frozen import FrozenModel
from plq.storage.address import place_given

NOISE = 8


def export(
    model: FrozenModel | str | Path,
    out: str | Path,
    *,
    format: str,
    network: Any = None,
    images: np.ndarray | None = None,
    name: str = "model",
) -> list[str]:
    """Write a model in another format; it is run and compared with the model before it takes its place.

    Args:
        model: a frozen model, its file, or a stripped model's folder. out: the file to write; of "c", the folder.
        format: "onnx", "qonnx", "stablehlo" or "c".
        network: of a folder whose network is not one of plq: its Linen class, or "package.module:Network".
        images: to compare on, uint8 [count, height, width, channels]; None: noise.
        name: of "c": what all names begin with.
    Returns lines about it. Raises UserError if it does not do what the model does, or cannot be written.
    """
    if not isinstance(format, str) or format not in EXPORTS:
        raise UserError(f"format={format!r}: unknown; {nearest(str(format), EXPORTS)}")
    path = place_given("out", out)
    if not isinstance(path, Path):
        raise UserError(f"out={path}: is an address, allowed a path")
    if format == "c":
        check_name(name)
    elif name != "model":
        raise UserError(f"name={shown(name)}: has no effect with format={format!r}")
    given = model if isinstance(model, FrozenModel) else place_given("model", model)
    require_target(format, name, path, {} if isinstance(given, FrozenModel) else {"model": given}, "out")
    source = Source(given) if isinstance(given, FrozenModel) else open_source(given, network)
    images = _images(source.frozen, images)
    source.require_agreement(images)
    options: dict[str, Any] = {"name": name, "images": images} if format == "c" else {}
    return write_checked(EXPORTS[format](source.frozen, False, **options), source.frozen, path, images, "out")


def _images(model: FrozenModel, given: np.ndarray | None) -> np.ndarray:
    """What the file is compared on, uint8 [count, *image_shape]. Raises UserError for what is not such images."""
    if given is None:
        return np.random.default_rng(0).integers(0, 256, (NOISE, *model.image_shape), np.uint8)
    images = resize_batch(given, model.image_shape, model.frozen.fit)
    if not len(images):
        raise UserError("images: found none, allowed 1 or more to compare on, or None for noise")
    return images
