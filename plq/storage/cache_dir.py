"""Where plq keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_directory(cache_dir: str = "") -> Path:
    """``cache_dir``, else $PLQ_CACHE_DIR, else plq in $XDG_CACHE_HOME or ~/.cache."""
    if cache_dir or os.environ.get("PLQ_CACHE_DIR"):
        return Path(cache_dir or os.environ["PLQ_CACHE_DIR"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "plq"
