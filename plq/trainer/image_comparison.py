"""A frozen model compared with its stripped model on test images."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from plq.config.load import build_config
from plq.config.schema import Data
from plq.data.augment import normalize
from plq.data.loader import DataLoader
from plq.data.sets import default_splits
from plq.errors import UserError
from plq.runtime import stripped_model
from plq.runtime.freezing import AT_ONCE, Source, _require_ties
from plq.runtime.frozen import FrozenModel
from plq.runtime.loading import Servable
from plq.runtime.verification import changed_by_last_bits
from plq.trainer.evaluation import all_logits, evaluation, open_loader, set_info

OTHER_CLASS = 0.01  # share of test images to which ties may give another class; more in unstable models


def compare_on_data(frozen: FrozenModel, source: Source, feed: DataLoader) -> dict[str, Any]:
    """Accuracy before and after, and how often the class is another one.

    Raises UserError if that is for more images than `OTHER_CLASS`, or twice as many as the model does to itself
    (`unstable_images`, which is then among what is returned), or for any image without a tie.
    """
    unstable = {}
    served, labels = all_logits(source.served, feed)
    exact = served if source.exact is source.served else all_logits(source.exact, feed)[0]
    found, _ = all_logits(frozen, feed)
    other = np.flatnonzero(found.argmax(1) != exact.argmax(1))
    if len(other) > OTHER_CLASS * len(labels):
        unstable["changed_by_last_bits"] = unstable_images(source.exact, exact, feed)
        allowed = max(int(OTHER_CLASS * len(labels)), 2 * unstable["changed_by_last_bits"])
        if len(other) > allowed:
            raise UserError(
                f"frozen and stripped model give another class to {len(other):,} of {len(labels):,} images, "
                f"allowed {allowed:,}; nothing was written"
            )
    _require_ties(frozen, source.exact, _images(feed, other), "test image")
    return {
        "images": len(labels),
        "accuracy_before": evaluation(served, labels)["accuracy"],
        "accuracy_after": evaluation(found, labels)["accuracy"],
        "other_class": len(other),
        "largest_difference": float(np.abs(found - exact).max()),
        **unstable,
    }


def unstable_images(exact: stripped_model.Model, logits: np.ndarray, feed: DataLoader) -> int:
    """To how many images the model itself gives another class when its last bits change (`changed_by_last_bits`).

    Args:
        logits: what ``exact`` gives to the images of ``feed``.
    """
    run = jax.jit(lambda variables, images: exact.network.apply(variables, normalize(images, exact.mean, exact.std)))
    classes_with = lambda variables: all_logits(partial(run, variables), feed)[0].argmax(1)
    return changed_by_last_bits(classes_with, exact.variables, logits.argmax(1))


def _images(feed: DataLoader, indices: np.ndarray) -> np.ndarray:
    """The first images of a feed, and those at these indices, uint8 [batch, *image_shape]."""
    wanted, seen, chosen = {*range(AT_ONCE), *indices.tolist()}, 0, []
    for images, _, mask in feed.eval_batches():
        for image in images[mask > 0]:
            if seen in wanted:
                chosen.append(image)
            seen += 1
    return np.stack(chosen)


def open_test(model: stripped_model.Model, split: str, data_dir: str) -> tuple[DataLoader, dict[str, str]]:
    """The test images of a model, and what they are. Raises UserError if they are not at hand."""
    data = trained_on(model, "the model")
    split = split or data.test_split or default_splits(data.name)[1]
    feed = open_labelled(model, dataclasses.replace(data, data_dir=data_dir or data.data_dir), split)
    return feed, {"data": data.name, "split": split}


def trained_on(model: Servable, source: str) -> Data:
    """The images that a model was trained on. Raises UserError if it does not say."""
    config = model.training.get("config")
    if not isinstance(config, dict) or "data" not in config:
        raise UserError(f"{source}: does not say what it was trained on")
    return build_config(config, source).data


def open_labelled(model: Servable, data: Data, split: str) -> DataLoader:
    """The images of a split, with labels of the model's classes. Raises UserError if the set's are other ones."""
    names, wanted = set_info(data).class_names, tuple(model.class_names)
    if len(names) != len(wanted):
        raise UserError(f"data.name={data.name}: found {len(names)} classes, the model has {len(wanted)}")
    if names != wanted and sorted(names) == sorted(wanted):
        raise UserError(f"data.name={data.name}: its classes are in another order than the model's")
    return open_loader(data, split)
