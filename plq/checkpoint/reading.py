"""Reading what may be damaged: Orbax's many complaints become one line."""

import contextlib
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from plq.errors import UserError

# What reading a damaged checkpoint can raise: missing files, tensorstore and JSON errors, and from Orbax's
# parsing of changed JSON lacking keys, wrong types and lacking attributes.
READ_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError)
WRITE_ERRORS = (OSError, ValueError, RuntimeError)

T = TypeVar("T")


class UnreadableError(UserError):
    """A checkpoint that is there and cannot be read."""


def reading(source: str, read: Callable[[], T]) -> T:
    """``read()``. Raises UnreadableError, naming ``source``, if what it reads is damaged."""
    with hushed():
        try:
            return read()
        except READ_ERRORS as error:
            why = reason(error)
        gc.collect()  # Orbax's unfinished reads complain when they are collected: here, unheard
    raise UnreadableError(f"{source}: cannot be read ({why})")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Without what Orbax and its event loop print about a damaged checkpoint; we say it in one line."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sys.unraisablehook = lambda _: None
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            sys.unraisablehook = hook
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom: Orbax wraps it in pages of settings."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
