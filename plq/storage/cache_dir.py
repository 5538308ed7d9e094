"""Where plq keeps what it can make or fetch again, and paths as people write them."""

import os
from pathlib import Path

from plq.storage.paths import path_of


def cache_directory(cache_dir: str = "") -> Path:
    """``cache_dir``, else $PLQ_CACHE_DIR, else plq in $XDG_CACHE_HOME or ~/.cache."""
    if cache_dir or os.environ.get("PLQ_CACHE_DIR"):
        return path_of(cache_dir or os.environ["PLQ_CACHE_DIR"])
    return path_of(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "plq"
