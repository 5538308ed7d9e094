"""Train, evaluate, strip: ``python -m plq.main --config configs/X.py [--workdir DIR] [--config.field=value ...]``."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from plq.checkpoint.store import Store
from plq.config.flags import read
from plq.config.load import default_workdir, fields_of
from plq.config.schema import Config
from plq.distributed.process import ProcessInfo, process_from_flags
from plq.distributed.session import is_primary, session
from plq.errors import UserError
from plq.report.table import format_table, human_bytes
from plq.storage.address import Address, place
from plq.train.mesh import bytes_per_device
from plq.trainer.setup import Setup, assemble
from plq.trainer.trainer import Interrupted, Run
from plq.trainer.workdir import MakeStore, claimed, require_start

PATIENCE = 60.0
USAGE = f"""usage: python -m plq.main --config FILE[:ARGUMENT] [--workdir DIR] [--config.SECTION.FIELD=VALUE ...]

Train an expanded low-precision network, evaluate it, and write the stripped model to DIR/model.
A run that was interrupted goes on when the same command is given again.

  --config FILE     a Python file with get_config(); what follows a colon is handed to it. The word quick there
                    (FILE:quick, FILE:ARGUMENT,quick) shrinks any config to a few steps of a narrow network
  --flagfile FILE   more arguments, one a line; also for the other programs that take --config
  --workdir DIR     where everything is written (default: runs/<name of FILE>-<ARGUMENT>); also gs://BUCKET/NAME and
                    s3://BUCKET/NAME (pip install 'plq[remote]')

Several processes make one run if Slurm, Open MPI, a Kubernetes JobSet or a TPU pod started them, or if each is given

  --coordinator HOST:PORT  where process 0 listens
  --num_processes N        how many there are; 1 alone: run alone wherever this is
  --process_id I           which one this is, 0 to N - 1

and --workdir is an address, or a folder that all of them see.

  --patience SECONDS  without a sign of life after which a process counts as lost and the others end ({PATIENCE:g})

Exit status: 0 done, 2 something given is wrong (one line says what), 130 or 143 stopped by Ctrl-C or SIGTERM,
134 another process was lost.

Fields of a config, with their defaults:
"""


def usage() -> str:
    """The help text; the fields are read off `Config`."""
    return USAGE + "\n".join(f"  --config.{name}={value!r}" for name, value in fields_of(Config().to_json()))


@dataclasses.dataclass(frozen=True)
class Given:
    """What the command line asks for. ``place`` is None where it does not say which of several processes this is."""

    config: Config
    workdir: Path | Address
    place: ProcessInfo | None
    patience: float


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", "", "where everything is written", flag_values=values)
    flags.DEFINE_string("coordinator", "", "where process 0 listens", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "how many processes", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which process", flag_values=values)
    flags.DEFINE_float("patience", PATIENCE, "seconds until a process counts as lost", flag_values=values)


def parse(argv: list[str]) -> Given:
    """The command line, checked. Raises UserError for whatever cannot be understood."""
    command = read(argv, _define_flags)
    given: dict[str, Any] = {name: command.flags[name].value for name in command.flags}
    try:
        workdir = place(given["workdir"] or str(default_workdir(command.file, command.argument)))
    except UserError as error:
        raise UserError(f"--workdir {error}") from error
    if not 1 <= given["patience"] < float("inf"):
        raise UserError(f"--patience {given['patience']:g}: allowed 1 or more seconds")
    process = process_from_flags(given["coordinator"], given["num_processes"], given["process_id"])
    return Given(command.config, workdir, process, given["patience"])


def print_layers(setup: Setup) -> None:
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
        for layer in setup.layers
    ]
    sums = [sum(row[column] for row in rows) for column in range(5, 9)]
    print(format_table(header, rows, ["total", "", "", "", "", *sums]))
    now, deployed = (human_bytes(size) for size in sums[2:])
    print(f"variables: {now} in training, {deployed} deployed with packed weights")
    if setup.mesh.size > 1:
        print(devices_line(setup))


def devices_line(setup: Setup) -> str:
    """On what the run goes, and what its state takes there."""
    mesh, processes = setup.mesh, jax.process_count()
    each = human_bytes(bytes_per_device(mesh, setup.abstract_state(0)))
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    where = f" of {processes} processes" if processes > 1 else ""
    return f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind}{where} ({axes}), state {each} on each"


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(usage())
        return
    given = parse(argv)
    with session(given.place, given.patience):
        setup = assemble(given.config)
        require_start(setup, given.workdir)
        with claimed(given.workdir, given.config) as (folder, make_store):
            if is_primary():
                print_layers(setup)
            train(setup, folder, make_store)


def train(setup: Setup, workdir: Path, make_store: MakeStore = Store) -> None:
    """A whole run in its folder. Ends the program with 128 + signal number after a signal."""
    current = Run(setup, workdir, make_store)
    try:
        current.train()
        current.finish()
    except Interrupted as interrupted:
        current.log.note(str(interrupted))
        sys.exit(128 + interrupted.signum)
    finally:
        current.close()
