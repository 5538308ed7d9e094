"""Plain low precision, EXP-Net and float, paired: ``plq compare --config configs/X.py --out DIR``."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from plq.cli.common import Parser, whole_number, words
from plq.cli.config_arguments import config_arguments, parse_config
from plq.errors import UserError, printable
from plq.storage.paths import path_of

if TYPE_CHECKING:
    from plq.compare.comparison import Comparison
    from plq.compare.plan import Plan
    from plq.compare.runs import Training
    from plq.config.selection import Selected

MARK = "compare.json"
OURS = (MARK, "cells", ".lock")
DESCRIPTION = """Train the plain low-precision network and EXP-Net (and the float network, if asked for) of one config
on one schedule, with the same data order and initial weights, for several seeds, and report what the seeds say
together. The same command given again goes on where it was stopped.
"""
EPILOG = """Exit status: 0 done, 1 a training failed (the others are reported), 2 something given is wrong,
130 or 143 stopped.
"""
VARY = """compare at each of these values; repeated, at all combinations; A+B=1+x,2+y varies A and B together; width
stands for model.width, and so all fields that only one section has"""


@dataclasses.dataclass(frozen=True)
class Given:
    """What the command line asks for. ``cells``: None for the folder of ``out``."""

    selected: Selected
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
        """FILE[:ARGUMENT]."""
        return ":".join([str(self.selected.file), *filter(None, [self.selected.argument])])

    def plan(self) -> Plan:
        from plq.compare.plan import make_plan, parse_axis

        axes = [parse_axis(text) for text in self.vary]
        return make_plan(self.selected.config, axes, self.variants, self.seeds, self.skip_illegal)


def parser() -> Parser:
    """The arguments."""
    made = config_arguments("compare", DESCRIPTION, EPILOG)
    out = "where everything is written: DIR/report.html, DIR/compare.json, DIR/figures and the trainings"
    made.add_argument("--out", metavar="DIR", default="", help=out)
    seeds = "how many, from train.seed on (default: 3)"
    made.add_argument("--seeds", metavar="N", type=whole_number("--seeds", 1), default=3, help=seeds)
    variants = "of plain, expanded, float (default: plain,expanded)"
    made.add_argument("--variants", metavar="LIST", type=words, default=("plain", "expanded"), help=variants)
    made.add_argument("--vary", metavar="FIELD=VALUE,VALUE,...", action="append", default=[], help=VARY)
    skip = "leave illegal combinations out, naming them, instead of refusing them"
    made.add_argument("--skip_illegal", action="store_true", help=skip)
    together = "run so many trainings (seeds, plain and EXP-Net) at most as one program (default: 1); 0: all that fit"
    made.add_argument("--together", metavar="N", type=whole_number("--together", 0), default=1, help=together)
    cells = "the folder for the trainings, which several comparisons can share (default: that of --out)"
    made.add_argument("--cells", metavar="DIR", default="", help=cells)
    reestimate = "also report accuracy with batch statistics averaged anew over N training batches (default: 0, do not)"
    made.add_argument("--reestimate", metavar="N", type=whole_number("--reestimate", 0), default=0, help=reestimate)
    return made


def parse(argv: list[str]) -> Given:
    """The command line, checked. Raises UserError for whatever cannot be understood."""
    given = parse_config(parser(), argv)
    if not given.out:
        raise UserError("--out DIR: missing (see --help)")
    from plq.config.selection import select

    return Given(
        selected=select(given.config, given.changes),
        out=_folder("--out", given.out),
        cells=_folder("--cells", given.cells) if given.cells else None,
        seeds=given.seeds,
        variants=given.variants,
        vary=tuple(given.vary),
        together=given.together,
        reestimate=given.reestimate,
        skip_illegal=given.skip_illegal,
    )


def _folder(option: str, text: str) -> Path:
    try:
        return path_of(text)
    except UserError as error:
        raise UserError(f"{option} {error}") from error


def trainings_of(plan: Plan, config: str, directory: Path) -> list[Training]:
    """Each with the command that does it by hand."""
    from plq.compare.plan import changed_fields
    from plq.compare.runs import Training
    from plq.config.selection import select

    bare = select(config, {}).config
    command = lambda cell: ("plq", "train", "--config", config, "--workdir", str(directory / cell.folder))
    return [
        Training(cell, (*command(cell), *changed_fields(bare, cell.config)), directory) for cell in plan.trainings()
    ]


def compare(given: Given) -> Comparison:
    """Everything up to the findings. Raises UserError before anything is trained or written, and Stopped."""
    from plq.compare.comparison import collect
    from plq.compare.preflight import preflight
    from plq.compare.report.page import require_report
    from plq.compare.runs import require_same_configs, run_all, share_compiled
    from plq.compare.vmapped_runs import groups_of, run_vmapped
    from plq.report.workdir import lock, prepare_workdir

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


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    given = parse(argv)
    from plq.compare.diagnostics import diagnostics_of
    from plq.compare.report.page import write_report
    from plq.compare.runs import Stopped
    from plq.compare.table import markdown
    from plq.storage.output import write_text_atomic

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
