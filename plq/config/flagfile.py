"""Arguments read from files: ``--flagfile FILE``, one argument a line."""

from pathlib import Path

from plq.errors import UserError
from plq.storage.paths import path_of


def expanded(argv: list[str], inside: tuple[Path, ...] = ()) -> list[str]:
    """The arguments with those of each ``--flagfile FILE`` in its place, so that all are read and reported alike.

    Empty lines, and lines that begin with # or //, are left out; a file may name others. What follows a ``--`` is left
    as it is. Raises UserError for a file that cannot be read, is no UTF-8 text, or names itself.

    Args:
        inside: the files that these arguments come from.
    """
    result: list[str] = []
    remaining = list(argv)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            return [*result, argument, *remaining]
        name, equals, value = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            result.append(argument)
            continue
        if not equals and not remaining:
            raise UserError("--flagfile: found no file, allowed --flagfile FILE")
        result += _arguments(value if equals else remaining.pop(0), inside)
    return result


def _arguments(given: str, inside: tuple[Path, ...]) -> list[str]:
    try:
        path = path_of(given)
        if path.resolve() in inside:
            raise UserError(f"{path}: names itself, allowed a file that does not")
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--flagfile {given}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--flagfile {given}: is not UTF-8 text") from error
    except UserError as error:
        raise UserError(f"--flagfile {error}") from error
    words = [line.strip() for line in lines]
    return expanded([word for word in words if word and not word.startswith(("#", "//"))], (*inside, path.resolve()))
