"""One training as a comparison with nothing, for a report of it alone."""

from pathlib import Path

from plq.compare.aggregate import aggregate
from plq.compare.comparison import Comparison
from plq.compare.history import read_history
from plq.compare.plan import Plan, RunConfig, changed_fields
from plq.compare.preflight import preflight
from plq.compare.runs import Training
from plq.compare.variants import variant_of
from plq.config.saved import saved_config
from plq.config.schema import Config
from plq.errors import UserError


def of_run(workdir: Path, network: str | None = None) -> Comparison:
    """A comparison of a single training with nothing. Raises UserError if the folder holds none with an evaluation.

    ``network``: see `plq.config.saved.saved_config`.
    """
    chosen = saved_config(workdir, network)
    variant, seed = variant_of(chosen), chosen.train.seed
    cell = RunConfig("", variant, seed, chosen, ".")
    plan = Plan({"": {}}, (variant,), (seed,), (cell,), ())
    history = read_history(workdir)
    if not history.test:
        raise UserError(f"{workdir}: no evaluation yet; allowed a training after its first epoch")
    facts = preflight(plan)
    histories = {variant: {seed: history}}
    return Comparison(
        config=str(workdir),
        plan=plan,
        points={"": aggregate(histories, {variant: facts["", variant]})},
        histories={"": histories},
        facts=facts,
        trainings={("", variant, seed): Training(cell, tuple(changed_fields(Config(), chosen)), workdir)},
        failed={},
    )
