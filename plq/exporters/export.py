"""Export from Python: a model written in another format and run once, or nothing written."""

from pathlib import Path

import numpy as np

from plq.errors import UserError, nearest
from plq.exporters.check import compare
from plq.exporters.formats import FORMATS, is_export
from plq.exporters.source import Source, open_source
from plq.runtime.frozen import FrozenModel
from plq.storage.address import place
from plq.storage.output import replacing, require_file, writing
from plq.storage.paths import path_of

NOISE = 8


def export(
    model: FrozenModel | str | Path, out: str | Path, *, format: str, images: np.ndarray | None = None
) -> list[str]:
    """Write a model in another format; the file is run and compared with the model before it takes its place.

    Args:
        model: a frozen model, its file, or a stripped model's folder. out: the file to write.
        format: "onnx", "qonnx" or "stablehlo".
        images: to compare on, uint8 [count, height, width, channels]; None: noise.
    Returns lines about the file. Raises UserError if it does not do what the model does, or cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"format={format!r}: unknown; {nearest(str(format), FORMATS)}")
    path = path_of(str(out))
    given = {} if isinstance(model, FrozenModel) else {"model": path_of(str(model))}
    require_file(path, given, is_export, "an export of plq", "out")
    source = Source(model) if isinstance(model, FrozenModel) else open_source(place(str(model)))
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (NOISE, *source.frozen.image_shape), np.uint8)
    made = FORMATS[format](source.frozen, False)
    with writing(path, "out"), replacing(path) as temporary:
        temporary.write_bytes(made.data)
        verdict = compare(source.frozen, made.run(temporary), images)
    return [*made.notes, str(verdict)]
