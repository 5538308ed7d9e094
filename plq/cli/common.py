"""What all programs of plq share: how they read arguments, and how they end when something is wrong."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from plq.errors import UserError
from plq.storage.address import Address, named, place


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def arguments(program: str, description: str) -> argparse.ArgumentParser:
    """A parser whose complaints are one line each."""
    return _Parser(prog=f"python -m {program}", description=description)


def path_or_address(text: str) -> Path | Address:
    """The type of an argument that names a folder or a file, here or in an object store."""
    try:
        return place(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(main: Callable[[], None]) -> None:
    """Run a program: status 0, or 2 after one line on stderr that says what was wrong."""
    for name in ("absl", "gcsfs", "google.auth"):  # these log pages of what is then raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.formatwarning = lambda message, *_, **__: f"plq: warning: {named(str(message))}\n"
    try:
        main()
    except UserError as error:
        print(f"plq: {named(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
