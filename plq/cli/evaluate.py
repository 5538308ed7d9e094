"""Accuracy on test images: ``plq evaluate --workdir DIR [--step N]`` or ``--model PATH``."""

from plq.cli.common import Parser, add_network, arguments, path_or_address
from plq.errors import UserError


def parser() -> Parser:
    """The arguments."""
    made = arguments("evaluate", "Accuracy of a checkpoint, or of a stripped or frozen model.")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=path_or_address, help="a training folder: its newest checkpoint, or --step")
    which.add_argument("--model", type=path_or_address, help="a stripped model (a folder) or a frozen one (a file)")
    made.add_argument("--step", type=int, help="which checkpoint of --workdir")
    add_network(made, "a training or a stripped model")
    made.add_argument("--split", default="", help="of --model: a split in TFDS syntax (default: the test split)")
    made.add_argument("--data_dir", default="", help="as data.data_dir (default: as in training, else $TFDS_DATA_DIR)")
    made.add_argument("--batch_size", type=int, default=128, help="of --model")
    return made


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parser().parse_args(argv)
    if given.batch_size < 1:
        raise UserError(f"--batch_size {given.batch_size}: allowed 1 or more")
    if given.model and given.step is not None:
        raise UserError("--step: goes with --workdir; a model holds one step only")
    if given.workdir and given.split:
        raise UserError("--split: goes with --model; a checkpoint is evaluated on data.test_split of its config")
    from plq.trainer.accuracy import evaluate_checkpoint, evaluate_model

    if given.workdir:
        print(evaluate_checkpoint(given.workdir, given.step, given.data_dir, given.network))
    else:
        print(evaluate_model(given.model, given.split, given.data_dir, given.batch_size, given.network))
