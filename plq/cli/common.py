"""What all programs of plq share: how they read arguments, and how they end when something is wrong."""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from plq.errors import UserError, printable
from plq.storage.address import Address, named, place
from plq.storage.paths import path_of


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line each."""

    def error(self, message: str) -> NoReturn:
        option, _, what = message.removeprefix("argument ").partition(": ")
        raise UserError(f"{what if option and what.startswith(option) else message} (see --help)")

    def options(self) -> list[str]:
        """The names of all options, as --seeds."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


def arguments(program: str, description: str, epilog: str = "") -> Parser:
    """The parser of a command. The description and the epilog are printed as they are."""
    layout = argparse.RawDescriptionHelpFormatter
    return Parser(f"plq {program}", None, description, epilog, formatter_class=layout, allow_abbrev=False)


def add_network(made: Parser, of: str) -> None:
    """The option that names the code of somebody's own network; ``of``: whose network it is."""
    what = f"the code of {of} whose network is not one of plq, importable from here; a folder imports nothing by itself"
    made.add_argument("--network", metavar="package.module:Network", type=_where, help=what)


def _where(text: str) -> str:
    from plq.models.importing import require_where

    try:
        require_where("--network", text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def whole_number(option: str, least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number of ``least``, 0 or 1, or more."""

    def parsed(text: str) -> int:
        try:
            if int(text) >= least:
                return int(text)
        except ValueError:
            pass
        kind = "positive" if least else "non-negative"
        raise argparse.ArgumentTypeError(f"{option}={text}: {text} is not a {kind} integer")

    return parsed


def words(text: str) -> tuple[str, ...]:
    """The type of an option that takes words with commas between them."""
    return tuple(word.strip() for word in text.split(","))


def path_or_address(text: str) -> Path | Address:
    """The type of an argument that names a folder or a file, here or in an object store."""
    try:
        return place(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_path(text: str) -> Path:
    """The type of an argument that names a folder or a file on this machine."""
    try:
        return path_of(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _show_once() -> Callable[..., None]:
    """What shows a warning as one line on stderr, and the same text once: Python itself forgets what it has shown."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = f"plq: warning: {printable(named(str(message)))}"
        if text not in shown:
            shown.add(text)
            print(text, file=sys.stderr)

    return show


def run(main: Callable[[], None]) -> None:
    """Run a program: status 0, or 2 after one line on stderr that says what was wrong."""
    for name in ("absl", "gcsfs", "google.auth"):  # these log pages of what is then raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.showwarning = _show_once()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an encoding does not have is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print(f"plq: {named(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk behind stdout, or a file system that fails while it is read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"plq: {printable(error.filename or 'output')}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
