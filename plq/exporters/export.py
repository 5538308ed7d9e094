"""Export from Python: a model written in another format and run once, or nothing written."""

from pathlib import Path
from typing import Any

import numpy as np

from plq.errors import UserError, nearest
from plq.exporters.formats import EXPORTS
from plq.exporters.source import Source, open_source
from plq.exporters.write import require_target, write_checked
from plq.runtime.frozen import FrozenModel
from plq.storage.address import place
from plq.storage.paths import path_of

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
    if format not in EXPORTS:
        raise UserError(f"format={format!r}: unknown; {nearest(str(format), EXPORTS)}")
    path = path_of(str(out))
    inputs = {} if isinstance(model, FrozenModel) else {"model": path_of(str(model))}
    require_target(format, name, path, inputs, "out")
    source = Source(model) if isinstance(model, FrozenModel) else open_source(place(str(model)), network)
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (NOISE, *source.frozen.image_shape), np.uint8)
    source.require_agreement(images)
    options: dict[str, Any] = {"name": name, "images": images} if format == "c" else {}
    return write_checked(EXPORTS[format](source.frozen, False, **options), source.frozen, path, images, "out")
