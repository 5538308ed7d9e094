"""The model that is exported, and the images that the export is checked on."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np

from plq import inference
from plq.config import settings
from plq.data.fit import fit_batch
from plq.data.sets import default_splits
from plq.errors import UserError
from plq.experiment import open_feed
from plq.export.check import BATCH
from plq.frozen.agreement import differences
from plq.frozen.file import Frozen
from plq.frozen.model import FrozenModel, from_frozen, load
from plq.frozen.record import record
from plq.predict import read_image


@dataclasses.dataclass(frozen=True)
class Source:
    """A frozen model, and the stripped model that it was made of if that is what was given."""

    frozen: FrozenModel
    stripped: inference.Model | None = None

    def require_agreement(self, images: np.ndarray) -> None:
        """Raise UserError unless the frozen model does what the stripped one does (`plq.frozen.agreement`)."""
        if self.stripped is None:
            return
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            for found in differences(self.frozen, self.stripped.network, self.stripped.variables, batch):
                if not found.tie:
                    where = f"image {start + found.image} differs at {found.node} by {found.apart:.2g}"
                    raise UserError(f"the frozen model is not the given one: {where}")


def open_source(path: Path) -> Source:
    """A frozen file, or a model folder, which is frozen here. Raises UserError for anything else."""
    if path.is_file():
        return Source(load(path))
    model = inference.load(path)
    graph = record(model.network, model.variables, model.image_shape, model.mean, model.std)
    return Source(from_frozen(Frozen(graph, model.class_names, model.fit, model.training), str(path)), model)


def image_files(model: FrozenModel, paths: list[Path]) -> np.ndarray:
    """uint8 [count, *image_shape] from image files. Raises UserError, naming the file, if one cannot be used."""
    return np.stack([read_image(path, cast(Any, model), convert=False) for path in paths])


def test_images(model: FrozenModel, data_dir: str, count: int) -> np.ndarray:
    """The first ``count`` test images of the set that the model was trained on, uint8 [count, *image_shape].

    Raises UserError if the set, or what the model says of it, is not there.
    """
    if "config" not in model.training:
        raise UserError("the model does not say which images it was trained on")
    data = settings(model.training["config"], "the model's config").data
    data = dataclasses.replace(data, data_dir=data_dir or data.data_dir, batch_size=min(count, BATCH))
    found: list[np.ndarray] = []
    for images, _, mask in open_feed(data, data.test_split or default_splits(data.name)[1]).in_order():
        found.append(fit_batch(images[mask > 0], model.image_shape, model.frozen.fit))
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]
