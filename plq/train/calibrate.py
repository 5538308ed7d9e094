"""The calibration stage: learned scales from the first batch and from inherited kernels, before the first step."""

import dataclasses

import jax
from jax import Array

from plq.data.augment import normalize
from plq.layers.scales import calibrate
from plq.layers.variables import kept
from plq.train.state import State
from plq.train.step import TrainSpec


def calibrated(task: TrainSpec, state: State, images: Array, kernels: bool) -> State:
    """The state with activation scales that fit these images, uint8 [batch, height, width, channels].

    In the plain network, so that the plain and the expanded network of one seed start from the same kept variables;
    with the statistics of this batch, because those of a fresh network say nothing yet, and those of an inherited one
    belong to float weights.

    Args:
        kernels: also set the learned scales of weights, from the kernels.
    """
    keys = dict(zip(("dropout", "gradient"), jax.random.split(jax.random.key(task.seed)), strict=True))
    keys["params"] = keys["dropout"]  # of streams of other names
    x = normalize(images, task.mean, task.std)
    variables = kept(state.variables)
    changed = calibrate(task.architecture.plain(), variables, x, kernels=kernels, train=True, rngs=keys)
    return dataclasses.replace(state, weights={**state.weights, "params": changed["params"]})
