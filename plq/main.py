"""Train, evaluate, strip: ``python -m plq.main --config configs/X.py [--workdir DIR] [--config.field=value ...]``."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from plq.config import default_workdir, differences, fields_of, read_config, settings
from plq.door import run
from plq.errors import UserError, nearest
from plq.experiment import Experiment, assemble
from plq.loop import Interrupted, Run
from plq.report.table import format_table, human_bytes
from plq.report.workdir import lock, prepare_workdir, write_text_atomic
from plq.settings import Settings

USAGE = """usage: python -m plq.main --config FILE[:ARGUMENT] [--workdir DIR] [--config.SECTION.FIELD=VALUE ...]

Train an expanded low-precision network, evaluate it, and write the stripped model to DIR/model.
A run that was interrupted goes on when the same command is given again.

  --config FILE     a Python file with get_config(); what follows a colon is handed to it
  --workdir DIR     where everything is written (default: runs/<name of FILE>)

Exit status: 0 done, 2 something given is wrong (one line says what), 130 or 143 stopped by Ctrl-C or SIGTERM.

Fields of a config, with their defaults:
"""


def usage() -> str:
    """The help text; the fields are read off `Settings`."""
    return USAGE + "\n".join(f"  --config.{name}={value!r}" for name, value in fields_of(Settings().to_json()))


def parse(argv: list[str]) -> tuple[Settings, Path]:
    """Checked settings and the folder of the run. Raises UserError for whatever cannot be understood."""
    for argument in argv:
        _check_field(argument)
    file = _config_file(argv)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "where everything is written", flag_values=values)
    config_flags.DEFINE_config_file("config", None, "the config", flag_values=values, sys_argv=["plq", *argv])
    try:
        rest = values(["plq", *argv])[1:]
        config = values["config"].value
    except flags.Error as error:
        raise UserError(_one_line(error)) from error
    except Exception as error:  # a config file is the user's own code and can raise anything
        raise UserError(f"--config: {type(error).__name__}: {_one_line(error)}") from error
    if rest:
        allowed = "--config FILE, --workdir DIR, --config.SECTION.FIELD=VALUE"
        raise UserError(f"{rest[0]}: not understood; allowed: {allowed}")
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {file}: its get_config() gives no ConfigDict but {type(config).__name__}")
    return settings(config), Path(values["workdir"].value or default_workdir(file))


def _check_field(argument: str) -> None:
    """Refuse --config.SECTION.FIELD=VALUE with an unknown section or field."""
    name = argument.lstrip("-").split("=")[0]
    if not name.startswith("config."):
        return
    section, _, field = name.removeprefix("config.").partition(".")
    legal = Settings().to_json()
    if section not in legal:
        raise UserError(f"--{name}: unknown section {section}; {nearest(section, legal)}")
    if field not in legal[section]:
        raise UserError(f"--{name}: unknown field; {nearest(field, legal[section])}")


def config_argument(argv: list[str]) -> str:
    """FILE[:ARGUMENT] of the last --config FILE[:ARGUMENT] or --config=FILE[:ARGUMENT]. Raises UserError."""
    given = [
        argument.split("=", 1)[1] if "=" in argument else following
        for argument, following in itertools.pairwise([*argv, ""])
        if argument.lstrip("-").split("=")[0] == "config"
    ]
    if not given:
        raise UserError("--config FILE: missing (see --help)")
    return given[-1]


def _config_file(argv: list[str]) -> Path:
    """The FILE alone. Raises UserError if it is not there."""
    file = Path(config_argument(argv).split(":")[0])
    if not file.is_file():
        raise UserError(f"--config {file}: no such file")
    return file


def _one_line(error: BaseException) -> str:
    """The last line that says something: absl and ml_collections put whole tracebacks into their messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "Traceback" in str(error) else "; ".join(lines)


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
