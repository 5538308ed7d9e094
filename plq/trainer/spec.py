"""What a run's steps depend on, from its settings and its network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from plq.data.augment import Augmentation
from plq.errors import UserError
from plq.layers.describe import expanded_layers, variable_roles
from plq.train.factor import FactorSchedule
from plq.train.optimizer import make_optimizer
from plq.train.step import TrainSpec

if TYPE_CHECKING:
    from plq.trainer.setup import Setup


def train_spec(setup: Setup) -> TrainSpec:
    """All that a step depends on besides state and batch."""
    config, data, expansion = setup.config, setup.config.data, setup.config.expansion
    roles = variable_roles(setup.expanded, setup.image_shape)
    return TrainSpec(
        architecture=setup.architecture,
        merge=expansion.merge,
        factor=setup.factor,
        optimizer=make_optimizer(config.optimizer, setup.total_steps, roles),
        augmentation=Augmentation(data.pad, data.flip and not data.crop, data.brightness, data.contrast),
        mean=data.mean,
        std=data.std,
        label_smoothing=config.train.label_smoothing,
        seed=config.train.seed,
        accumulate=config.train.accumulate,
        norm=expansion.norm,
    )


def factor_over(setup: Setup) -> FactorSchedule:
    """f over the run; it knows the expanded layers of the network where each has its own.

    Raises UserError for an f above 0 without a layer that has a branch.
    """
    factor = setup.config.factor.over(setup.total_steps)
    if factor.order == "together" and setup.architecture.code is None:
        return factor
    layers = expanded_layers(setup.expanded, setup.image_shape)
    if not layers and factor.end_step != 0:
        allowed = "a rule with expand=True, or factor.name=constant (the plain network)"
        raise UserError(f"quant.rules: found no layer with a branch for factor.name={factor.name}, allowed {allowed}")
    return factor if factor.order == "together" else dataclasses.replace(factor, layers=layers)
