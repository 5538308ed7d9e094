"""The report of one training: ``plq report --workdir DIR`` writes DIR/report.html and DIR/figures."""

import shlex
import sys
from pathlib import Path

from plq.cli.common import arguments, local_path
from plq.compare.aggregate import aggregate
from plq.compare.comparison import Comparison
from plq.compare.diagnostics import diagnosed
from plq.compare.history import read_history
from plq.compare.plan import Plan, RunConfig, changed_fields
from plq.compare.preflight import preflight
from plq.compare.report.page import require_report, write_report
from plq.compare.runs import Training
from plq.compare.variants import variant_of
from plq.config.load import build_config, read_config
from plq.config.schema import Config
from plq.distributed.devices import devices
from plq.errors import UserError, printable


def of_run(workdir: Path) -> Comparison:
    """A comparison of a single training with nothing. Raises UserError if the folder holds none with an evaluation."""
    chosen = build_config(read_config(workdir), str(workdir / "config.json"))
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


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    parser = arguments("report", "Write the report of one training, finished or not, into its folder.")
    parser.add_argument("--workdir", type=local_path, required=True, help="the folder of a training")
    workdir: Path = parser.parse_args(argv).workdir
    devices()
    require_report(workdir, "--workdir")
    found = of_run(workdir)
    probes = {}
    for (label, variant, seed), training in found.trainings.items():
        if (workdir / "model").is_dir():
            probes = {label: {variant: {seed: diagnosed(workdir, training.cell.config.data, seed, 0)}}}
    command = shlex.join(["plq", "report", *argv])
    print(f"report: {printable(write_report(found, probes, workdir, command))}")
