"""A model to serve by its path: a stripped one is a folder, a frozen one a file."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from plq.data.images import MODES, open_image, pixels, upright
from plq.errors import UserError
from plq.runtime import frozen
from plq.storage.address import Address
from plq.storage.staging import staged_input


class Servable(Protocol):
    """What can be served: a stripped model, a frozen one, or one that is compiled."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, channels] of what the network sees."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""

    @property
    def training(self) -> dict[str, Any]:
        """Where the model comes from."""

    def __call__(self, images: np.ndarray) -> Any:
        """Logits, float32 [batch, classes], of uint8 images [batch, height, width, channels] of any size."""

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """An image uint8 [height, width, channels] brought to the network's size as the test images were."""


def open_model(given: Path | Address, network: Any = None) -> Servable:
    """Raises UserError for anything that is neither.

    ``network``: of a stripped model whose network is not one of plq, see `plq.runtime.stripped_model.load`.
    """
    with staged_input(given) as path:
        if path.is_file() or (path.suffix == ".plq" and not path.exists()):
            require_no_network(network, given)
            return frozen.load(path)
        from plq.runtime import stripped_model  # needs Flax, which a frozen model does without

        return stripped_model.load(path, network)


def require_no_network(network: Any, given: Path | Address) -> None:
    """Raise UserError if the code of a network was named for a frozen file."""
    if network is not None:
        raise UserError(f"network={network}: has no effect, {given} is a frozen file, which needs no code")


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
