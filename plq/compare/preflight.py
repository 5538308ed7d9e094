"""Every kind of training of a plan, opened once before anything runs: does the data fit, how long is it?"""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from plq.compare.plan import Plan
from plq.config.schema import Config
from plq.trainer.describe import Row, rows_of
from plq.trainer.setup import assemble

FACTOR_POINTS = 161


@dataclasses.dataclass(frozen=True)
class Facts:
    """Steps of an epoch and of the run, the step from which f is 0, what the layers cost, and what it would run on.

    ``factor``: f over the run, as (epoch, f).
    """

    epoch_steps: int
    total_steps: int
    zero_step: int
    factor: tuple[tuple[float, float], ...]
    layers: tuple[Row, ...]
    device: str


def facts_of(chosen: Config) -> Facts:
    """Opens the data and describes the network. Raises UserError if they do not fit."""
    setup = assemble(chosen)
    devices = jax.devices()
    device = f"{len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"
    factor, epoch, total = setup.task.factor, setup.epoch_steps, setup.total_steps
    steps = jnp.asarray(np.unique(np.linspace(0, total, FACTOR_POINTS, dtype=np.int32)))
    curve = tuple(zip((steps / epoch).tolist(), jax.vmap(factor)(steps).tolist(), strict=True))
    layers = rows_of(chosen, setup.image_shape, len(setup.info.class_names))
    return Facts(epoch, total, factor.end_step or 0, curve, tuple(layers), device)


def preflight(plan: Plan) -> dict[tuple[str, str], Facts]:
    """Facts by point and variant. In a process of its own, which gives the accelerator back to the trainings."""
    kinds = {(cell.point, cell.variant): cell.config for cell in plan.cells if cell.seed == plan.seeds[0]}
    distinct = list(dict.fromkeys(kinds.values()))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        facts = dict(zip(distinct, process.map(facts_of, distinct), strict=True))
    return {kind: facts[chosen] for kind, chosen in kinds.items()}
