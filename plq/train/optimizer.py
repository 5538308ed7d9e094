"""Optimizers and learning-rate schedules, assembled from optax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plq.checks import at_least, choice, require_types
from plq.errors import UserError, nearest
from plq.layers.describe import ROLES
from plq.layers.variables import flatten, leaf_path
from plq.modes import in_32_bits

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "step", "staircase", "cosine")
DECAYS = ("decoupled", "l2")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How weights are updated. Times are shares of the run, so that a shortened run keeps its shape.

    step: times ``multipliers[i]`` from ``boundaries[i]`` on; staircase: times ``multipliers[0]`` every
    ``boundaries[0]``; cosine: to 0 at the end. ``warmup``: linear from 0 over this share, before any of them.
    ``weight_decay`` touches the variables whose role is in ``decay_roles``: "decoupled" (times the learning
    rate, after the optimizer's own scaling; arXiv 1711.05101) or "l2" (added to the gradient).
    """

    name: str = "adam"  # sgd, adam
    learning_rate: float = 1e-3  # at the start, after the warmup
    momentum: float = 0.9  # sgd: of the update, 0: none; adam: beta1
    nesterov: bool = False  # Nesterov's momentum
    beta2: float = 0.999  # adam: decay of the mean of squared gradients
    epsilon: float = 1e-5  # adam: added to the root of that mean
    schedule: str = "constant"  # of the learning rate: constant, step, staircase, cosine
    boundaries: tuple[float, ...] = (0.5,)  # shares of the run: when the rate changes (staircase: how often)
    multipliers: tuple[float, ...] = (0.5,)  # what it is multiplied by there, one for each of boundaries
    warmup: float = 0.0  # share of the run in which the learning rate rises from 0; 0: off
    weight_decay: float = 0.0  # its strength; 0: off
    decay: str = "decoupled"  # how weights decay: decoupled, or l2 (added to the gradient)
    decay_roles: tuple[str, ...] = ("conv", "dense", "ancillary")  # what decays, of these and norm, bias, quantizer
    clip_norm: float = 0.0  # largest norm of the whole gradient; 0: off

    def check(self) -> None:
        """Raise UserError unless every field has its type and is legal."""
        require_types("optimizer", self)
        for field, legal in (("name", OPTIMIZERS), ("schedule", SCHEDULES), ("decay", DECAYS)):
            choice(f"optimizer.{field}", getattr(self, field), legal)
        for role in self.decay_roles:
            if role not in ROLES:
                raise UserError(f"optimizer.decay_roles: {role} is unknown; {nearest(role, ROLES)}")
        for field in ("learning_rate", "epsilon"):
            if not getattr(self, field) > 0:
                raise UserError(f"optimizer.{field}={getattr(self, field)}: allowed above 0")
        for field in ("weight_decay", "clip_norm"):
            if not getattr(self, field) >= 0:
                raise UserError(f"optimizer.{field}={getattr(self, field)}: allowed 0 (off) or above")
        for field in ("momentum", "beta2", "warmup"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"optimizer.{field}={getattr(self, field)}: allowed 0 or above, below 1")
        self._check_boundaries()

    def _check_boundaries(self) -> None:
        if self.schedule not in ("step", "staircase"):
            return
        if list(self.boundaries) != sorted(set(self.boundaries)) or not all(0 < b <= 1 for b in self.boundaries):
            allowed = "rising shares of the run, above 0, up to 1"
            raise UserError(f"optimizer.boundaries={self.boundaries}: allowed {allowed}")
        wanted = 1 if self.schedule == "staircase" else len(self.boundaries)
        if not self.boundaries or len(self.boundaries) != wanted or len(self.multipliers) != wanted:
            found = f"{len(self.boundaries)} boundaries and {len(self.multipliers)} multipliers"
            allowed = "one of each" if self.schedule == "staircase" else "one multiplier for each boundary"
            raise UserError(f"optimizer.multipliers={self.multipliers}: found {found}, allowed {allowed}")
        if not all(multiplier > 0 for multiplier in self.multipliers):
            raise UserError(f"optimizer.multipliers={self.multipliers}: allowed numbers above 0")


def learning_rate(recipe: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate as a function of the step."""
    recipe.check()
    at_least("total_steps", total_steps, 1)
    schedule = _schedule(recipe, total_steps)

    def rate(step: Any) -> Any:
        with in_32_bits():
            return schedule(step)

    return rate


def _schedule(recipe: OptimizerConfig, total_steps: int) -> optax.Schedule:
    base, steps = recipe.learning_rate, [max(1, round(b * total_steps)) for b in recipe.boundaries]
    warmup = round(recipe.warmup * total_steps)
    schedules: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(base),
        "cosine": lambda: optax.cosine_decay_schedule(base, max(1, total_steps - warmup)),
        "step": lambda: optax.piecewise_constant_schedule(base, _merged(steps, recipe.multipliers)),
        "staircase": lambda: optax.exponential_decay(base, steps[0], recipe.multipliers[0], staircase=True),
    }
    schedule = schedules[recipe.schedule]()
    if not warmup:
        return schedule
    after = schedule if recipe.schedule == "cosine" else lambda step: schedule(step + warmup)
    return optax.join_schedules([optax.linear_schedule(0.0, base, warmup), after], [warmup])


def _merged(steps: list[int], multipliers: tuple[float, ...]) -> dict[int, float]:
    """Boundaries that fall on one step (a very short run) multiply there."""
    merged: dict[int, float] = {}
    for step, multiplier in zip(steps, multipliers, strict=True):
        merged[step] = merged.get(step, 1.0) * multiplier
    return merged


def make_optimizer(recipe: OptimizerConfig, total_steps: int, roles: dict[str, Any]) -> optax.GradientTransformation:
    """The update rule for {"params": ..., "ancillary": ...}, or for what is left of it after removal.

    Args:
        recipe: checked here, UserError if illegal. roles: from `variable_roles` of the expanded network.
    """
    recipe.check()

    by_path = flatten(roles)

    def decayed(weights):
        return jax.tree_util.tree_map_with_path(lambda path, _: by_path[leaf_path(path)] in recipe.decay_roles, weights)

    decay = [optax.add_decayed_weights(recipe.weight_decay, decayed)] if recipe.weight_decay else []
    clip = [_clip_by_global_norm(recipe.clip_norm)] if recipe.clip_norm else []
    if recipe.name == "sgd":
        core = [optax.trace(recipe.momentum, recipe.nesterov)] if recipe.momentum else []
    else:
        core = [optax.scale_by_adam(recipe.momentum, recipe.beta2, recipe.epsilon, nesterov=recipe.nesterov)]
    middle = decay + core if recipe.decay == "l2" else core + decay
    return _in_32_bits(optax.chain(*clip, *middle, optax.scale_by_learning_rate(learning_rate(recipe, total_steps))))


def _clip_by_global_norm(largest: float) -> optax.GradientTransformation:
    """As `optax.clip_by_global_norm`, whose 0 / 0 at a gradient of zero JAX_DEBUG_NANS takes for an error."""

    def update(gradients: Any, state: Any, weights: Any = None) -> Any:
        norm = optax.global_norm(gradients)
        divisor = jnp.where(norm < largest, 1.0, norm)
        clipped = lambda leaf: jnp.where(norm < largest, leaf, leaf / divisor.astype(leaf.dtype) * largest)
        return jax.tree.map(clipped, gradients), state

    return optax.GradientTransformation(lambda weights: optax.EmptyState(), update)


def _in_32_bits(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    def update(gradients: Any, state: Any, weights: Any = None) -> Any:
        with in_32_bits():
            return rule.update(gradients, state, weights)

    return optax.GradientTransformation(rule.init, update)
