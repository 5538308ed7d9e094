"""``plq prune``: strip a checkpoint."""

from plq.cli.common import Parser, arguments, path_or_address
from plq.errors import printable
from plq.storage.output import require_apart
from plq.storage.staging import RUN, staged_input, staged_output


def parser() -> Parser:
    """The arguments."""
    made = arguments("prune", "Strip a checkpoint: drop the ancillary branch, write the model to serve.")
    made.add_argument("--workdir", type=path_or_address, required=True, help="the folder that training wrote")
    made.add_argument("--step", type=int, help="which checkpoint (default: the latest)")
    made.add_argument("--out", type=path_or_address, required=True, help="the model folder to write")
    made.add_argument("--force", action="store_true", help="strip although the factor f is above 0")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first lines."""
    given = parser().parse_args(argv)
    from plq.checkpoint.prune import prune_checkpoint
    from plq.distributed.devices import devices

    devices()
    require_apart(given.out, {"--workdir": given.workdir})
    with staged_input(given.workdir, RUN) as workdir, staged_output(given.out) as out:
        dropped, step = prune_checkpoint(workdir, given.step, out, given.force)
    for path in dropped.paths:
        print(f"  dropped {path}")
    print(f"step {step}: dropped {dropped}; model in {printable(given.out)}")
    if not dropped.paths:
        print("(the checkpoint held no ancillary leaves: training had already removed the branch)")
