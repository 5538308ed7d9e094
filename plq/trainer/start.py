"""The state of a run's first step: fresh or inherited weights, and learned scales that fit the first batch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np

from plq.errors import UserError
from plq.layers.variables import flatten
from plq.train.calibrate import calibrated
from plq.train.mesh import place, state_shardings
from plq.train.state import State

if TYPE_CHECKING:
    from plq.trainer.setup import Setup


def initial_state(setup: Setup) -> State:
    """The state of step 0, on the mesh. Raises UserError if a calibrated scale is not finite."""
    state, warm_start = setup.pruned(setup.init(), 0), setup.warm_start
    if warm_start is not None:
        weights, statistics = warm_start.into(state.weights), warm_start.into(state.statistics)
        state = dataclasses.replace(state, weights=weights, statistics=statistics)
    state, kernels = place(setup.mesh, state), warm_start is not None
    if not setup.learned:
        return state

    def calibrate(state: State, images: jax.Array) -> State:
        state = calibrated(setup.task, setup.whole(state), images, kernels)
        return jax.lax.with_sharding_constraint(state, state_shardings(setup.mesh, state))

    state = jax.jit(calibrate)(state, setup.batch(0)[0])
    _require_finite_scales(setup, state)
    return state


def _require_finite_scales(setup: Setup, state: State) -> None:
    weights = flatten(state.weights)
    for path, scale in setup.replicate({path: weights[path] for path in setup.learned}).items():
        if not np.isfinite(scale).all():
            found = np.asarray(scale)[~np.isfinite(scale)][0]
            cause = "what its layer gets from the weights so far overflows or is not a number"
            raise UserError(f"calibration on the first batch: {path} is {found}, allowed finite scales; {cause}")
