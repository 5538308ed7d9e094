"""The configuration: its fields, files, flags. Config files of plq 0.1 import `default` from here."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "default":
        raise AttributeError(f"module 'plq.config' has no attribute {name!r}")
    from plq.config.load import default  # imports much, which --help does without

    return default
