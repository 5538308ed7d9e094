"""Train, evaluate, strip: ``plq train --config configs/X.py [--workdir DIR] [--config.field=value ...]``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from plq.cli.common import Parser
from plq.cli.config_arguments import config_arguments, parse_config
from plq.config.reference import help_text
from plq.errors import UserError
from plq.storage.address import Address, place

if TYPE_CHECKING:
    from plq.config.schema import Config
    from plq.distributed.process import ProcessInfo
    from plq.trainer.setup import Setup
    from plq.trainer.workdir import MakeStore

PATIENCE = 60.0
DESCRIPTION = """Train an expanded low-precision network, evaluate it, and write the stripped model to DIR/model.
A run that was interrupted goes on when the same command is given again.
"""
EPILOG = """Several processes make one run if Slurm, Open MPI, a Kubernetes JobSet or a TPU pod started them, or if
each is given --coordinator, --num_processes and --process_id, and --workdir is an address, or a folder that all of
them see.

Exit status: 0 done, 2 something given is wrong (one line says what), 130 or 143 stopped by Ctrl-C or SIGTERM,
134 another process was lost.

Fields of a config, with default, type and meaning:
"""


@dataclasses.dataclass(frozen=True)
class Given:
    """What the command line asks for. ``place`` is None where it does not say which of several processes this is."""

    config: Config
    workdir: Path | Address
    place: ProcessInfo | None
    patience: float


def parser() -> Parser:
    """The arguments; the fields are read off the sources."""
    made = config_arguments("train", DESCRIPTION, EPILOG + help_text())
    where = (
        "where everything is written (default: runs/<name of FILE>-<ARGUMENT>); also gs://BUCKET/NAME and "
        "s3://BUCKET/NAME (pip install 'plq[remote]')"
    )
    made.add_argument("--workdir", metavar="DIR", default="", help=where)
    made.add_argument("--coordinator", metavar="HOST:PORT", default="", help="where process 0 listens")
    made.add_argument(
        "--num_processes", metavar="N", type=int, help="how many there are; 1 alone: run alone wherever this is"
    )
    made.add_argument("--process_id", metavar="I", type=int, help="which one this is, 0 to N - 1")
    patience = "without a sign of life after which a process counts as lost and the others end (default: %(default)g)"
    made.add_argument("--patience", metavar="SECONDS", type=float, default=PATIENCE, help=patience)
    return made


def parse(argv: list[str]) -> Given:
    """The command line, checked. Raises UserError for whatever cannot be understood."""
    given = parse_config(parser(), argv)
    if not 1 <= given.patience < float("inf"):
        raise UserError(f"--patience {given.patience:g}: allowed 1 or more seconds")
    from plq.config.load import default_workdir
    from plq.config.selection import select
    from plq.distributed.process import process_from_flags

    selected = select(given.config, given.changes)
    try:
        workdir = place(given.workdir or str(default_workdir(selected.file, selected.argument)))
    except UserError as error:
        raise UserError(f"--workdir {error}") from error
    process = process_from_flags(given.coordinator, given.num_processes, given.process_id)
    return Given(selected.config, workdir, process, given.patience)


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parse(sys.argv[1:] if argv is None else argv)
    from plq.distributed.session import is_primary, session
    from plq.trainer.setup import assemble
    from plq.trainer.summary import print_layers
    from plq.trainer.workdir import claimed, require_start

    with session(given.place, given.patience):
        setup = assemble(given.config)
        require_start(setup, given.workdir)
        with claimed(given.workdir, given.config) as (folder, make_store):
            if is_primary():
                print_layers(setup)
            train(setup, folder, make_store)


def train(setup: Setup, workdir: Path, make_store: MakeStore | None = None) -> None:
    """A whole run in its folder. Ends the program with 128 + signal number after a signal."""
    from plq.checkpoint.store import Store
    from plq.trainer.trainer import Interrupted, Run

    current = Run(setup, workdir, make_store or Store)
    try:
        current.train()
        current.finish()
    except Interrupted as interrupted:
        current.log.note(str(interrupted))
        sys.exit(128 + interrupted.signum)
    finally:
        current.close()
