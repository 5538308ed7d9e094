"""The one error a user of plq is meant to read."""

import contextlib
import difflib
import os
import traceback
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """Something a person gave is wrong: a field, a file, a folder.

    The message is one line that names what was given, what was found and what is allowed.
    Every program of plq prints it after ``plq: `` and exits with status 2; nothing else is printed.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: object) -> str:
    r"""The text in one line that any UTF-8 terminal or file takes: what is not printable becomes an escape.

    File names may hold line feeds, control characters, and bytes that are no UTF-8.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def nearest(name: str, legal: Iterable[str]) -> str:
    """A tail for a message about an unknown name: the nearest legal one, then all of them.

    >>> nearest("dorfea", ["dorefa", "xnor"])
    'did you mean dorefa? allowed: dorefa, xnor'
    """
    legal = list(legal)
    close = difflib.get_close_matches(name, legal, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}allowed: {', '.join(legal)}"


def first_line(error: BaseException) -> str:
    """Of the message of an exception from elsewhere, up to 200 characters; its type if there is no message.

    >>> first_line(ValueError("no such thing\\n\\nSee the manual"))
    'no such thing'
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def one_line(what: str, file: str = "") -> Iterator[None]:
    """For code of a user, which can raise anything: that becomes a UserError that begins with ``what``.

    A UserError passes as it is, and so does KeyboardInterrupt; SystemExit is an error. ``file``: whose lines to name.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"{what}: {_what_was_raised(file, error)}") from error


def _what_was_raised(file: str, error: BaseException) -> str:
    """Line of the file, kind and message of an exception, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == os.path.abspath(file)]
    where = f"line {frames[-1].lineno}: " if frames else ""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{where}{type(error).__name__}: {'; '.join(lines)}"
