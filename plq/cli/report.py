"""The report of one training: ``plq report --workdir DIR`` writes DIR/report.html and DIR/figures."""

import shlex
import sys
from pathlib import Path

from plq.cli.common import Parser, add_network, arguments, local_path
from plq.errors import printable


def parser() -> Parser:
    """The arguments."""
    made = arguments("report", "Write the report of one training, finished or not, into its folder.")
    made.add_argument("--workdir", type=local_path, required=True, help="the folder of a training")
    add_network(made, "a training")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    given = parser().parse_args(argv)
    workdir: Path = given.workdir
    from plq.compare.diagnostics import diagnosed
    from plq.compare.report.page import require_report, write_report
    from plq.compare.single import of_run
    from plq.distributed.devices import devices

    devices()
    require_report(workdir, "--workdir")
    found = of_run(workdir, given.network)
    probes = {}
    for (label, variant, seed), training in found.trainings.items():
        if (workdir / "model").is_dir():
            probes = {label: {variant: {seed: diagnosed(workdir, training.cell.config, seed, 0)}}}
    command = shlex.join(["plq", "report", *argv])
    print(f"report: {printable(write_report(found, probes, workdir, command))}")
