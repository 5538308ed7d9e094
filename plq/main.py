"""Train, evaluate, strip: ``python -m plq.main --config configs/X.py [--workdir DIR] [--config.field=value ...]``."""

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from plq.command_line import read
from plq.config import default_workdir, differences, fields_of, read_config
from plq.door import run
from plq.errors import UserError
from plq.experiment import Experiment, assemble
from plq.loop import Interrupted, Run
from plq.report.table import format_table, human_bytes
from plq.report.workdir import lock, prepare_workdir, write_text_atomic
from plq.settings import Settings

USAGE = """usage: python -m plq.main --config FILE[:ARGUMENT] [--workdir DIR] [--config.SECTION.FIELD=VALUE ...]

Train an expanded low-precision network, evaluate it, and write the stripped model to DIR/model.
A run that was interrupted goes on when the same command is given again.

  --config FILE     a Python file with get_config(); what follows a colon is handed to it. The word quick there
                    (FILE:quick, FILE:ARGUMENT,quick) shrinks any config to a few steps of a narrow network
  --workdir DIR     where everything is written (default: runs/<name of FILE>-<ARGUMENT>)

Exit status: 0 done, 2 something given is wrong (one line says what), 130 or 143 stopped by Ctrl-C or SIGTERM.

Fields of a config, with their defaults:
"""


def usage() -> str:
    """The help text; the fields are read off `Settings`."""
    return USAGE + "\n".join(f"  --config.{name}={value!r}" for name, value in fields_of(Settings().to_json()))


def parse(argv: list[str]) -> tuple[Settings, Path]:
    """Checked settings and the folder of the run. Raises UserError for whatever cannot be understood."""
    command = read(argv, lambda values: flags.DEFINE_string("workdir", "", "the folder", flag_values=values))
    workdir = command.flags["workdir"].value or default_workdir(command.file, command.argument)
    return command.settings, Path(workdir)


def print_layers(experiment: Experiment) -> None:
    """The table at the start: bits, variables, and bytes while training and deployed."""
    header = ["layer", "kind", "W", "A", "output", "parameters", "ancillary", "bytes now", "deployed"]
    rows: list[list[Any]] = [
        [
            layer.name,
            layer.kind,
            layer.weight_bits,
            layer.activation_bits,
            "x".join(map(str, layer.output_shape)),
            layer.parameters,
            layer.ancillary_parameters,
            layer.bytes_now,
            layer.bytes_deployed,
        ]
        for layer in experiment.layers
    ]
    sums = [sum(row[column] for row in rows) for column in range(5, 9)]
    print(format_table(header, rows, ["total", "", "", "", "", *sums]))
    now, deployed = (human_bytes(size) for size in sums[2:])
    print(f"variables: {now} in training, {deployed} deployed with packed weights")


def claim(workdir: Path, chosen: Settings) -> None:
    """Save the resolved config, or, where one is saved, refuse a run that would compute something else."""
    file = workdir / "config.json"
    if not file.exists():
        write_text_atomic(file, json.dumps(chosen.to_json(), indent=1) + "\n")
        return
    changed = differences(read_config(workdir), chosen.to_json())
    if changed:
        raise UserError(f"--workdir {workdir}: holds a run with another config ({'; '.join(changed)}); choose another")


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(usage())
        return
    chosen, workdir = parse(argv)
    experiment = assemble(chosen)
    prepare_workdir(workdir)
    with lock(workdir):
        claim(workdir, chosen)
        print_layers(experiment)
        train(experiment, workdir)


def train(experiment: Experiment, workdir: Path) -> None:
    """A whole run in its folder. Ends the program with 128 + signal number after a signal."""
    current = Run(experiment, workdir)
    try:
        current.train()
        current.finish()
    except Interrupted as interrupted:
        current.log.note(str(interrupted))
        sys.exit(128 + interrupted.signum)
    finally:
        current.close()


if __name__ == "__main__":
    run(main)
