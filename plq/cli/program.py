"""The command ``plq``, also ``python -m plq``: the name of a command, then the arguments of that command."""

import importlib
import sys

from plq import __version__
from plq.cli.common import run
from plq.errors import UserError, nearest

COMMANDS = {  # each is the module of plq.cli of its name, imported when it is asked for
    "train": "train an expanded network, evaluate it, write the stripped model",
    "evaluate": "accuracy of a checkpoint, or of a stripped or frozen model",
    "prune": "strip a checkpoint: drop the ancillary branch",
    "predict": "classes of image files",
    "freeze": "pack a stripped model into one file",
    "info": "layers, sizes and origin of a frozen model",
    "export": "write a model as ONNX, QONNX or StableHLO",
    "compare": "plain low precision against EXP-Net, paired by seed",
    "report": "the page of one training",
    "describe": "parameters, bytes and operations of a config's network",
    "prepare": "prepare a TFDS data set once",
}


def usage() -> str:
    lines = [f"  {name:<10}{meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join(["usage: plq COMMAND [ARGUMENT ...]", "", *lines, "", "plq COMMAND --help says more."])


def main(argv: list[str] | None = None) -> None:
    """The program. Raises UserError for an unknown command."""
    argv = sys.argv[1:] if argv is None else argv
    name, *rest = argv or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name == "--version":
        print(f"plq {__version__}")
    elif name in COMMANDS:
        importlib.import_module(f"plq.cli.{name}").main(rest)
    else:
        raise UserError(f"{name}: unknown command; {nearest(name, COMMANDS)}")


def console() -> None:
    """The entry point of the installed script."""
    run(main)
