"""Plain low precision, EXP-Net and float, paired: ``plq compare --config configs/X.py --out DIR``."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags

from plq.compare.comparison import Comparison, collect
from plq.compare.diagnostics import Diagnostics, diagnosed
from plq.compare.plan import Plan, changed_fields, make_plan, parse_axis
from plq.compare.preflight import preflight
from plq.compare.report.page import require_report, write_report
from plq.compare.runs import Stopped, Training, require_same_configs, run_all, say, share_compiled, show
from plq.compare.table import markdown
from plq.compare.vmapped_runs import groups_of, run_vmapped
from plq.config.flags import Command, read
from plq.errors import UserError, printable
from plq.report.workdir import lock, prepare_workdir
from plq.storage.output import write_text_atomic
from plq.storage.paths import path_of

MARK = "compare.json"
OURS = (MARK, "cells", ".lock")
USAGE = """usage: plq compare --config FILE[:ARGUMENT] --out DIR [options] [--config.SECTION.FIELD=VALUE ...]

Train the plain low-precision network and EXP-Net (and the float network, if asked for) of one config on one schedule,
with the same data order and initial weights, for several seeds, and report what the seeds say together.
The same command given again goes on where it was stopped.

  --out DIR         where everything is written: DIR/report.html, DIR/compare.json, DIR/figures and the trainings
  --seeds N         how many, from train.seed on (3)
  --variants LIST   of plain, expanded, float (plain,expanded)
  --vary FIELD=VALUE,VALUE,...
                    compare at each of these values; repeated, at all combinations; A+B=1+x,2+y varies A and B together;
                    width stands for model.width, and so all fields that only one section has
  --skip_illegal    leave illegal combinations out, naming them, instead of refusing them
  --together N      run so many trainings (seeds, plain and EXP-Net) at most as one program (1); 0: all that fit
  --cells DIR       the folder for the trainings, which several comparisons can share (that of --out)
  --reestimate N    also report accuracy with batch statistics averaged anew over N training batches (0: do not)

Exit status: 0 done, 1 a training failed (the others are reported), 2 something given is wrong, 130 or 143 stopped.
"""


@dataclasses.dataclass(frozen=True)
class Given:
    """What the command line asks for. ``config``: FILE[:ARGUMENT]; ``cells``: None for the folder of ``out``."""

    command: Command
    out: Path
    cells: Path | None
    seeds: int
    variants: tuple[str, ...]
    vary: tuple[str, ...]
    together: int
    reestimate: int
    skip_illegal: bool

    @property
    def config(self) -> str:
        return ":".join([str(self.command.file), *filter(None, [self.command.argument])])

    def plan(self) -> Plan:
        axes = [parse_axis(text) for text in self.vary]
        return make_plan(self.command.config, axes, self.variants, self.seeds, self.skip_illegal)


def _define(values: flags.FlagValues) -> None:
    for name in ("out", "cells"):
        flags.DEFINE_string(name, "", "a folder", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "how many", lower_bound=1, flag_values=values)
    flags.DEFINE_list("variants", ["plain", "expanded"], "which networks", flag_values=values)
    flags.DEFINE_multi_string("vary", [], "FIELD=VALUE,VALUE,...", flag_values=values)
    flags.DEFINE_integer("together", 1, "trainings in a program", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("reestimate", 0, "batches", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("skip_illegal", False, "leave illegal combinations out", flag_values=values)


def parse(argv: list[str]) -> Given:
    """The command line, checked. Raises UserError for whatever cannot be understood."""
    command = read(argv, _define)
    given: dict[str, Any] = {name: command.flags[name].value for name in command.flags}
    if not given["out"]:
        raise UserError("--out DIR: missing (see --help)")
    return Given(
        command=command,
        out=_folder("--out", given["out"]),
        cells=_folder("--cells", given["cells"]) if given["cells"] else None,
        seeds=given["seeds"],
        variants=tuple(given["variants"]),
        vary=tuple(given["vary"]),
        together=given["together"],
        reestimate=given["reestimate"],
        skip_illegal=given["skip_illegal"],
    )


def _folder(option: str, text: str) -> Path:
    try:
        return path_of(text)
    except UserError as error:
        raise UserError(f"{option} {error}") from error


def trainings_of(plan: Plan, config: str, directory: Path) -> list[Training]:
    """Each with the command that does it by hand."""
    bare = read(["--config", config], lambda values: None).config
    command = lambda cell: ("plq", "train", "--config", config, "--workdir", str(directory / cell.folder))
    return [
        Training(cell, (*command(cell), *changed_fields(bare, cell.config)), directory) for cell in plan.trainings()
    ]


def compare(given: Given) -> Comparison:
    """Everything up to the findings. Raises UserError before anything is trained or written, and Stopped."""
    plan = given.plan()
    for line in plan.left_out:
        print(f"left out: {line}", file=sys.stderr)
    directory, option = given.cells or given.out, "--cells" if given.cells else "--out"
    trainings = trainings_of(plan, given.config, directory)
    require_same_configs(trainings)
    facts = preflight(plan)
    prepare_workdir(directory, option, OURS)
    prepare_workdir(given.out, "--out", OURS)
    require_report(given.out, "--out")
    share_compiled(directory)
    with lock(directory, option):
        failed = {} if given.together == 1 else run_vmapped(groups_of(plan, trainings, given.together), directory)
        failed |= run_all([training for training in trainings if training.cell.folder not in failed])
        return collect(given.config, plan, trainings, facts, failed)


def diagnostics_of(found: Comparison, batches: int) -> dict[str, dict[str, dict[int, Diagnostics]]]:
    """A look into every trained model, by label, variant and seed. batches: for `plq.compare.reestimate`."""
    probes: dict[str, dict[str, dict[int, Diagnostics]]] = {
        label: {variant: {} for variant in found.variants} for label in found.points
    }
    done = {place: training for place, training in found.trainings.items() if training.done}
    say(f"report: looking into {len(done)} models")
    for number, ((label, variant, seed), training) in enumerate(done.items(), 1):
        show(f"[{number}/{len(done)}] {training.folder.name}")
        probes[label][variant][seed] = diagnosed(training.folder, training.cell.config.data, seed, batches)
    show("")
    return probes


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(USAGE)
        return
    given = parse(argv)
    try:
        found = compare(given)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    command = shlex.join(["plq", "compare", *argv])
    write_text_atomic(given.out / MARK, json.dumps({"command": command, **found.to_json()}, indent=1) + "\n")
    print(markdown(found.points, found.variants))
    print(f"report: {printable(write_report(found, diagnostics_of(found, given.reestimate), given.out, command))}")
    for folder, reason in found.failed.items():
        print(f"failed: {(given.cells or given.out) / folder}: {reason}", file=sys.stderr)
    sys.exit(1 if found.failed else 0)
