"""Train, evaluate, strip: ``python -m plq.main --config configs/X.py [--workdir DIR] [--config.field=value ...]``."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import flags

from plq.checkpoint.mirrored import MirroredStore
from plq.checkpoint.model_file import require_place
from plq.checkpoint.store import Store
from plq.command_line import read
from plq.config import FREE_PER_PROCESS, default_workdir, differences, fields_of, read_config
from plq.door import run
from plq.errors import UserError
from plq.experiment import Experiment, assemble
from plq.hosts.place import Place, flagged
from plq.hosts.together import is_first, of_first, together
from plq.loop import Interrupted, MakeStore, Run
from plq.output import write_text_atomic
from plq.remote.address import Address, place
from plq.remote.mirror import copied, mirrored
from plq.report.table import format_table, human_bytes
from plq.report.workdir import lock, prepare_workdir, require_shared
from plq.settings import Settings
from plq.train.mesh import bytes_per_device

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
    """The help text; the fields are read off `Settings`."""
    return USAGE + "\n".join(f"  --config.{name}={value!r}" for name, value in fields_of(Settings().to_json()))


@dataclasses.dataclass(frozen=True)
class Given:
    """What the command line asks for. ``place`` is None where it does not say which of several processes this is."""

    settings: Settings
    workdir: Path | Address
    place: Place | None
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
    process = flagged(given["coordinator"], given["num_processes"], given["process_id"])
    return Given(command.settings, workdir, process, given["patience"])


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
    if experiment.mesh.size > 1:
        print(devices_line(experiment))


def devices_line(experiment: Experiment) -> str:
    """On what the run goes, and what its state takes there."""
    mesh, processes = experiment.mesh, jax.process_count()
    each = human_bytes(bytes_per_device(mesh, experiment.abstract_state(0)))
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    where = f" of {processes} processes" if processes > 1 else ""
    return f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind}{where} ({axes}), state {each} on each"


def claim(workdir: Path, chosen: Settings) -> None:
    """Save the resolved config, or, where one is saved, refuse a run that would compute something else."""
    file = workdir / "config.json"
    require_place(workdir / "model")
    if not file.exists():
        write_text_atomic(file, json.dumps(chosen.to_json(), indent=1) + "\n")
        return
    changed = differences(read_config(workdir), chosen.to_json())
    if changed:
        raise UserError(f"--workdir {workdir}: holds a run with another config ({'; '.join(changed)}); choose another")


def require_start(experiment: Experiment, workdir: Path | Address) -> None:
    """Before a run makes a folder: raise UserError if it cannot start from ``model.init_from``."""
    if isinstance(workdir, Path) and not (workdir / "config.json").exists():
        _ = experiment.inherited


@contextlib.contextmanager
def claimed(workdir: Path | Address, chosen: Settings) -> Iterator[tuple[Path, MakeStore]]:
    """The folder of the run, held by process 0, and how to open its checkpoints.

    For an address each process has a local copy as its folder, and process 0 sends what is written. Raises UserError
    where another process was given something else.
    """
    with contextlib.ExitStack() as held:
        folder = workdir if isinstance(workdir, Path) else workdir.copy(f"run-{jax.process_index()}")
        if is_first() or folder != workdir:
            prepare_workdir(folder)
            held.enter_context(lock(folder))
        mirror = held.enter_context(mirrored(workdir, folder)) if is_first() and isinstance(workdir, Address) else None
        if is_first():
            claim(folder, chosen)
        if mirror is not None:
            mirror.send()
        first = json.loads(of_first("config", json.dumps(chosen.to_json())))
        changed = differences(first, chosen.to_json(), FREE_PER_PROCESS, "process 0 has")
        if changed:
            raise UserError(f"--config: not that of process 0 ({'; '.join(changed)}); allowed one command for all")
        if mirror is None and isinstance(workdir, Address):
            held.enter_context(copied(workdir, folder))
        require_shared(folder)
        yield folder, Store if isinstance(workdir, Path) else partial(MirroredStore, mirror=mirror)


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(usage())
        return
    given = parse(argv)
    with together(given.place, given.patience):
        experiment = assemble(given.settings)
        require_start(experiment, given.workdir)
        with claimed(given.workdir, given.settings) as (folder, make_store):
            if is_first():
                print_layers(experiment)
            train(experiment, folder, make_store)


def train(experiment: Experiment, workdir: Path, make_store: MakeStore = Store) -> None:
    """A whole run in its folder. Ends the program with 128 + signal number after a signal."""
    current = Run(experiment, workdir, make_store)
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
