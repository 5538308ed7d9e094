"""A model to serve by its path: a stripped one is a folder, a frozen one a file."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from plq.data.images import MODES, open_image, pixels, upright
from plq.errors import UserError, nearest
from plq.runtime import frozen
from plq.storage.address import Address, place
from plq.storage.staging import staged_input

if TYPE_CHECKING:
    from plq.runtime import stripped_model

ENGINES = ("jax",)
Servable: TypeAlias = "stripped_model.Model | frozen.FrozenModel"


def load(path: str | Path | Address, *, engine: str = "jax") -> Servable:
    """A model to serve: of a frozen file, or of a stripped folder; also at an address (gs://, s3://).

    It is called with uint8 images [batch, height, width, channels] and gives float32 logits [batch, classes].

    Args:
        engine: "jax", the only one.
    Raises UserError for anything that is neither, naming what was found.
    """
    if engine not in ENGINES:
        raise UserError(f"engine={engine!r}: unknown; {nearest(str(engine), ENGINES)}")
    return open_model(place(path) if isinstance(path, str) else path)


def open_model(given: Path | Address) -> Servable:
    """Raises UserError for anything that is neither."""
    with staged_input(given) as path:
        if path.is_file():
            return frozen.load(path)
        from plq.runtime import stripped_model  # needs Flax, which a frozen model does without

        return stripped_model.load(path)


def read_image(path: Path, model: Servable, convert: bool) -> np.ndarray:
    """uint8 [height, width, channels] as the model takes it. Raises UserError, naming the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    image = open_image(data, str(path))
    channels = model.image_shape[2]
    if image.mode != MODES[channels] and not convert:
        wanted = {1: "greyscale (L)", 3: "colour (RGB)"}[channels]
        raise UserError(f"{path}: image mode {image.mode}, the model takes {wanted}; --convert converts it")
    return model.fitted(pixels(upright(image), channels))
