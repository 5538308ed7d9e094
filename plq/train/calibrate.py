"""The calibration stage: learned activation scales from the first batch, before the first step."""

import dataclasses

import jax
from jax import Array

from plq.data.augment import normalize
from plq.layers.activation import calibrate
from plq.train.state import State
from plq.train.step import Task
from plq.variables import KEPT


def calibrated(task: Task, state: State, images: Array) -> State:
    """The state with activation scales that fit these images, uint8 [batch, height, width, channels].

    In the plain network, so that the plain and the expanded network of one seed start from the same kept variables;
    with the statistics of this batch, because those of a fresh network say nothing yet.
    """
    variables = {name: state.variables.get(name, {}) for name in KEPT}
    keys = dict(zip(("dropout", "gradient"), jax.random.split(jax.random.key(task.seed)), strict=True))
    x = normalize(images, task.mean, task.std)
    params = calibrate(task.architecture.plain(), variables, x, train=True, rngs=keys)["params"]
    return dataclasses.replace(state, weights={**state.weights, "params": params})
