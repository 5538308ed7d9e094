"""A diagnostic: the stripped model with batch statistics averaged anew over training images."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.data.augment import normalize
from plq.layers.variables import leaf_path
from plq.runtime.stripped_model import Model


def reestimated(model: Model, batches: Iterable[np.ndarray]) -> Model:
    """The mean of each batch's mean and variance, instead of their decaying average during training.

    Args:
        batches: uint8 images [batch, height, width, channels] of the network's size, one batch at least.
    """
    if not model.variables["batch_stats"]:
        return model
    of_batch = jax.jit(lambda images, step: _of_batch(model, images, step))
    found = [of_batch(images, step) for step, images in enumerate(batches)]
    statistics = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *found)
    return dataclasses.replace(model, variables={**model.variables, "batch_stats": statistics})


def _of_batch(model: Model, images: Array, step: Array) -> Any:
    """A batch norm turns r into m r + (1 - m) b; r = 0 and r = 1 give m, and with it b, for any momentum m."""
    keys = dict(zip(("dropout", "gradient"), jax.random.split(jax.random.key(step)), strict=True))
    keys["params"] = keys["dropout"]  # of streams of other names
    x, statistics = normalize(images, model.mean, model.std), model.variables["batch_stats"]

    def updated(start: Any) -> Any:
        variables = {**model.variables, "batch_stats": start}
        mutable = [name for name in variables if name != "params"]
        return model.network.apply(variables, x, train=True, rngs=keys, mutable=mutable)[1]["batch_stats"]

    low, high = (updated(jax.tree.map(like, statistics)) for like in (jnp.zeros_like, jnp.ones_like))
    renewed = jax.tree.map(lambda at_0, at_1: at_0 / (1 - (at_1 - at_0)), low, high)
    is_mean = lambda path: leaf_path(path).split("/")[-1] in ("mean", "var")
    choose = lambda path, new, old: new if is_mean(path) else old  # what else a network keeps there
    return jax.tree_util.tree_map_with_path(choose, renewed, statistics)
