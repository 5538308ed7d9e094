"""A frozen model in use: one file, and nothing of the training framework.

model = plq.load("model.plq")
logits = model(images)                            # uint8 [batch, height, width, channels]
"""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from plq.data.resize import resize_batch, resize_image
from plq.distributed.devices import devices
from plq.errors import UserError
from plq.runtime.executor import Arrays, Runner, plan
from plq.runtime.file_format import Frozen, encode, read, write
from plq.runtime.heads import split
from plq.storage.address import Address
from plq.storage.paths import path_of
from plq.storage.staging import staged_input


@dataclasses.dataclass(frozen=True)
class FrozenModel:
    """A network of few-bit integers with everything needed to feed it an image; used like `stripped_model.Model`."""

    frozen: Frozen
    runner: Runner

    def __call__(self, images: np.ndarray) -> Any:
        """Logits, float32 [batch, classes], of uint8 images [batch, height, width, channels] of any size.

        Of a network with several outputs a tuple or a dict of them, as the network gives them. Raises UserError for
        images of another type or number of channels.
        """
        return split(self.frozen.graph.heads, self.flat(resize_batch(images, self.image_shape, self.frozen.fit)))

    def flat(self, images: np.ndarray) -> Array:
        """What the graph gives of uint8 images [batch, *image_shape]: several outputs as one vector."""
        return self._logits(self._arrays, images)

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """An image uint8 [height, width, channels] brought to the network's size as the test images were."""
        return resize_image(image, self.image_shape, self.frozen.fit)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.frozen.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, channels] of what the network sees."""
        return self.frozen.graph.image_shape

    @property
    def training(self) -> dict[str, Any]:
        """Where the model comes from: "config" is the run's, "freezing" what was measured."""
        return self.frozen.training

    def save(self, path: str | Path) -> None:
        """Write the model into one file, which `load` reads. Raises UserError if it cannot be written."""
        write(path_of(str(path)), encode(self.frozen))

    def results(self, images: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Logits and the integers of each quantized activation by node, and what it rounds.

        Args:
            images: uint8 [batch, *image_shape].
        """
        return jax.device_get(self._results(self._arrays, images))

    @cached_property
    def _results(self):
        def watched(arrays: Arrays, images: Array) -> tuple[dict[str, Array], dict[str, Array]]:
            results, rounded = self.runner.results(arrays, images)
            return {name: results[name] for name in (*rounded, self.frozen.graph.output)}, rounded

        return jax.jit(watched)

    @cached_property
    def _arrays(self) -> Arrays:
        return jax.device_put(self.runner.arrays)

    @cached_property
    def _logits(self):
        return jax.jit(self.runner.logits)


def load(path: str | Path | Address) -> FrozenModel:
    """Read a frozen model, also at an address (gs://, s3://). Raises UserError, in one line, for anything else."""
    with staged_input(path) as file:
        return from_frozen(read(file), str(path))


def from_frozen(frozen: Frozen, source: str = "model") -> FrozenModel:
    """The model of a file's content in hand. Raises UserError if it cannot be computed exactly, or not on a device."""
    devices()
    try:
        return FrozenModel(frozen, plan(frozen.graph))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
