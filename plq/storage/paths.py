"""What a person means by the text of a path, read in one way everywhere."""

import os
from pathlib import Path

from plq.errors import UserError


def path_of(text: str) -> Path:
    """The path of this text, a leading ``~`` or ``~user`` replaced by that home folder.

    A ``~`` elsewhere, or before the name of nobody, is a character like any other. Raises UserError for a text that no
    file system takes: an empty one, a name that is too long, a loop of symbolic links.
    """
    if not text:
        raise UserError("found an empty path, allowed the path of a file or folder")
    return possible(Path(os.path.expanduser(text)), text)


def possible(path: Path, text: str) -> Path:
    """The path, which ``text`` stands for. Raises UserError, naming the text, if no file system takes it."""
    try:
        os.stat(path)
    except ValueError as error:
        raise UserError(f"{text}: found a null character, which no path has") from error
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except OSError as error:
        raise UserError(f"{text if len(text) < 100 else text[:100] + '...'}: {error.strerror}") from error
    return path
