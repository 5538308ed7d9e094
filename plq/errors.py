"""The one error a user of plq is meant to read."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something a person gave is wrong: a field, a file, a folder.

    The message is one line that names what was given, what was found and what is allowed.
    Every program of plq prints it after ``plq: `` and exits with status 2; nothing else is printed.
    """


def nearest(name: str, legal: Iterable[str]) -> str:
    """A tail for a message about an unknown name: the nearest legal one, then all of them.

    >>> nearest("dorfea", ["dorefa", "xnor"])
    'did you mean dorefa? allowed: dorefa, xnor'
    """
    legal = list(legal)
    close = difflib.get_close_matches(name, legal, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}allowed: {', '.join(legal)}"
