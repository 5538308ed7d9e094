"""Where plq keeps what it can make or fetch again, and paths as people write them."""

import os
from pathlib import Path

from plq.errors import UserError


def cache_directory(cache_dir: str = "") -> Path:
    """``cache_dir``, else $PLQ_CACHE_DIR, else plq in $XDG_CACHE_HOME or ~/.cache."""
    if cache_dir or os.environ.get("PLQ_CACHE_DIR"):
        return user_path(cache_dir or os.environ["PLQ_CACHE_DIR"])
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "plq"


def user_path(text: str) -> Path:
    """The path, with a home folder in place of ~ or ~NAME. Raises UserError if there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: there is no such home folder") from error
