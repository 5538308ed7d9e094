"""The model that is exported, and the images that the export is checked on."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np

from plq.errors import UserError
from plq.exporters.check import BATCH
from plq.runtime import stripped_model
from plq.runtime.freezing import freeze_model, read_source
from plq.runtime.frozen import FrozenModel, from_frozen, load
from plq.runtime.loading import read_image, require_no_network
from plq.runtime.verification import Reference, differences
from plq.storage.address import Address
from plq.storage.staging import staged_input
from plq.trainer.image_comparison import open_test


@dataclasses.dataclass(frozen=True)
class Source:
    """A frozen model, and the stripped one that it was made of if that is what was given."""

    frozen: FrozenModel
    stripped: stripped_model.Model | None = None

    def require_agreement(self, images: np.ndarray) -> None:
        """Raise UserError unless the frozen model does what the stripped one does (`plq.runtime.verification`)."""
        if self.stripped is None:
            return
        model = self.stripped
        reference = Reference(model.network, model.variables, model.mean, model.std)
        for start in range(0, len(images), BATCH):
            for found in differences(self.frozen, reference, images[start : start + BATCH]):
                if not found.tie:
                    where = f"image {start + found.image}, first at {found.node}, by {found.apart:.2g}"
                    raise UserError(f"frozen and stripped model differ beyond ties: {where}")


def open_source(given: Path | Address, network: Any = None) -> Source:
    """A frozen model's file, or a stripped model's folder, which is frozen here. Raises UserError for anything else.

    ``network``: of a folder, see `plq.runtime.stripped_model.load`.
    """
    with staged_input(given) as path:
        if path.is_file():
            require_no_network(network, path)
            return Source(load(path))
        stripped = read_source(path, network).exact
    return Source(from_frozen(freeze_model(stripped), str(given)), stripped)


def image_files(model: FrozenModel, paths: list[Path], convert: bool) -> np.ndarray:
    """uint8 [count, *image_shape] from image files, with ``convert`` of any number of channels.

    Raises UserError, naming the file, if one cannot be used.
    """
    return np.stack([read_image(path, model, convert) for path in paths])


def test_images(model: FrozenModel, data_dir: str, count: int) -> np.ndarray:
    """The first ``count`` test images of the set that the model was trained on, uint8 [count, *image_shape].

    Raises UserError if the set, or what the model says of it, is not there.
    """
    feed, _ = open_test(cast(Any, model), "", data_dir)
    found: list[np.ndarray] = []
    for images, _, mask in feed.eval_batches():
        found.append(images[mask > 0])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]
