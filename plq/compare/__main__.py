"""Plain low precision, EXP-Net and float, paired: ``python -m plq.compare --config configs/X.py --out DIR``."""

import argparse
import json
import shlex
import sys
from pathlib import Path

from plq.compare.cells import Stopped, Training, require_same_configs, run_all
from plq.compare.comparison import Comparison, collect
from plq.compare.opening import opened
from plq.compare.plan import Plan, changed_fields, make_plan, parse_axis
from plq.compare.probe import Probe, probed
from plq.compare.report.page import write_report
from plq.compare.table import markdown
from plq.compare.together import groups_of, run_together
from plq.door import arguments, run
from plq.errors import UserError
from plq.main import config_argument, parse
from plq.report.workdir import lock, prepare_workdir, write_text_atomic

MARK = "compare.json"
OURS = (MARK, "cells", ".lock")
USAGE = "python -m plq.compare --config FILE[:ARGUMENT] --out DIR [options] [--config.SECTION.FIELD=VALUE ...]"
DESCRIPTION = """\
Train the plain low-precision network and EXP-Net (and the float network, if asked for) of one config on one schedule,
with the same data order and initial weights, for several seeds, and report what the seeds say together.
The same command given again goes on where it was stopped.
Exit status: 0 done, 1 a training failed (the others are reported), 2 something given is wrong, 130 or 143 stopped."""


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and those that `plq.main` understands."""
    parser = arguments("plq.compare", DESCRIPTION)
    parser.usage = USAGE
    parser.add_argument("--out", type=Path, required=True, help="the folder for everything")
    parser.add_argument("--cells", type=Path, help="the folder for the trainings, which several comparisons can share")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from train.seed on (default: 3)")
    parser.add_argument("--variants", default="plain,expanded", help="plain, expanded, float (default: the first two)")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=VALUE,VALUE,...",
        help="compare at each of these values; repeated, at all combinations; A+B=1+x,2+y varies A and B together",
    )
    parser.add_argument(
        "--together",
        type=int,
        nargs="?",
        const=0,
        metavar="LANES",
        help="run seeds, plain and EXP-Net as one program, of at most so many trainings (default: any number)",
    )
    parser.add_argument(
        "--reestimate",
        type=int,
        default=0,
        metavar="BATCHES",
        help="also report accuracy with batch statistics averaged anew over so many training batches",
    )
    parser.add_argument("--skip_illegal", action="store_true", help="leave illegal combinations out, naming them")
    given, rest = parser.parse_known_args(argv)
    for option in ("together", "reestimate"):
        if (getattr(given, option) or 0) < 0:
            raise UserError(f"--{option} {getattr(given, option)}: allowed 0 or more")
    for argument in rest:
        if argument.split("=")[0] == "--workdir":
            raise UserError("--workdir: each training gets its own folder below --out")
    return given, rest


def trainings_of(plan: Plan, config: str, directory: Path) -> list[Training]:
    """Each with the command that does it by hand."""
    bare = parse(["--config", config])[0]
    command = lambda cell: ("python", "-m", "plq.main", "--config", config, "--workdir", str(directory / cell.folder))
    return [
        Training(cell, (*command(cell), *changed_fields(bare, cell.settings)), directory) for cell in plan.trainings()
    ]


def compare(given: argparse.Namespace, rest: list[str]) -> Comparison:
    """Everything up to the findings. Raises UserError before anything is trained or written, and Stopped."""
    axes = [parse_axis(text) for text in given.vary]
    plan = make_plan(parse(rest)[0], axes, given.variants.split(","), given.seeds, given.skip_illegal)
    for line in plan.left_out:
        print(f"left out: {line}", file=sys.stderr)
    config, directory = config_argument(rest), given.cells or given.out
    trainings = trainings_of(plan, config, directory)
    require_same_configs(trainings)
    facts = opened(plan)
    option = "--cells" if given.cells else "--out"
    prepare_workdir(directory, option, OURS)
    prepare_workdir(given.out, "--out", OURS)
    with lock(directory, option):
        failed = {} if given.together is None else run_together(groups_of(plan, trainings, given.together), directory)
        failed |= run_all([training for training in trainings if training.cell.folder not in failed])
        return collect(config, plan, trainings, facts, failed)


def probes_of(found: Comparison, batches: int) -> dict[str, dict[str, dict[int, Probe]]]:
    """A look into every trained model, by label, variant and seed. batches: for `plq.compare.reestimate`."""
    probes: dict[str, dict[str, dict[int, Probe]]] = {
        label: {variant: {} for variant in found.variants} for label in found.points
    }
    for (label, variant, seed), training in found.trainings.items():
        if training.done:
            probes[label][variant][seed] = probed(training.folder, training.cell.settings.data, seed, batches)
    return probes


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    given, rest = parse_arguments(argv)
    try:
        found = compare(given, rest)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    command = shlex.join(["python", "-m", "plq.compare", *argv])
    write_text_atomic(given.out / MARK, json.dumps({"command": command, **found.to_json()}, indent=1) + "\n")
    print(markdown(found.points, found.variants))
    print(f"report: {write_report(found, probes_of(found, given.reestimate), given.out, command)}")
    for folder, reason in found.failed.items():
        print(f"failed: {(given.cells or given.out) / folder}: {reason}", file=sys.stderr)
    sys.exit(1 if found.failed else 0)


if __name__ == "__main__":
    run(main)
