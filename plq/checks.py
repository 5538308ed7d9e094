"""Whether a value is what a field means: an integer, a number, one of several names. No value is guessed or rounded."""

import dataclasses
import math
import numbers
import types
from collections.abc import Callable, Iterable
from typing import Any

from plq.errors import UserError, nearest


def integer(field: str, value: Any) -> int:
    """The value as an int; NumPy's integers are fine. Raises UserError for anything else, True and 2.0 included."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise other_type(field, value, "int")
    return int(value)


def number(field: str, value: Any) -> float:
    """The value as a float. Raises UserError for what is no real number, True included, and for nan and infinity."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise other_type(field, value, "float")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise UserError(f"{field}={found}: allowed a finite number")
    if isinstance(value, numbers.Integral) and found != value:
        raise UserError(f"{field}={value}: allowed a number of at most 53 bits")
    return found


def within(field: str, value: Any, legal: Callable[[float], bool], allowed: str) -> float:
    """The value as a float. Raises UserError that says what is ``allowed`` unless it is a number and ``legal``."""
    found = number(field, value)
    if not legal(found):
        raise UserError(f"{field}={value}: allowed {allowed}")
    return found


def at_least(field: str, value: Any, least: int) -> int:
    """The value as an int. Raises UserError unless it is an integer of ``least`` or more."""
    found = integer(field, value)
    if found < least:
        raise UserError(f"{field}={value}: allowed {least} or more")
    return found


def choice(field: str, value: Any, legal: Iterable[str]) -> str:
    """The value. Raises UserError, with the nearest legal name, unless it is one of ``legal``."""
    legal = list(legal)
    if not isinstance(value, str):
        raise other_type(field, value, "str", f", one of {', '.join(legal)}")
    if value not in legal:
        raise UserError(f"{field}={value}: unknown; {nearest(value, legal)}")
    return value


def instance(field: str, value: Any, kinds: type | tuple[type, ...], allowed: str) -> None:
    """Raise UserError, which says what is ``allowed``, unless the value is of one of these types."""
    if not isinstance(value, kinds):
        raise other_type(field, value, allowed)


def typed(field: str, value: Any, wanted: Any) -> Any:
    """The value in the type of its field: int, float, bool, str, a tuple of one of them, or one or a tuple.

    Raises UserError.
    """
    if isinstance(wanted, types.UnionType):  # one number, or several
        one, several = wanted.__args__
        return typed(field, value, several if isinstance(value, (tuple, list)) else one)
    if isinstance(wanted, types.GenericAlias):
        item = wanted.__args__[0]
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{field}={shown(value)}: allowed a tuple of {item.__name__}")
        place = "{}[{}]" if item is dict else "{}"
        return tuple(typed(place.format(field, index), entry, item) for index, entry in enumerate(value))
    if wanted in (int, float):
        return integer(field, value) if wanted is int else number(field, value)
    if not isinstance(value, wanted):
        raise other_type(field, value, wanted.__name__)
    return value


def require_types(section: str, fields: Any) -> None:
    """Raise UserError, naming "section.field", unless each field of a dataclass has a value of its type."""
    for field in dataclasses.fields(fields):
        if field.type in (int, float, bool, str, dict) or isinstance(field.type, (types.GenericAlias, types.UnionType)):
            typed(f"{section}.{field.name}", getattr(fields, field.name), field.type)


def shown(value: Any) -> str:
    """A value for a message: one line, not long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


def other_type(field: str, value: Any, allowed: str, more: str = "") -> UserError:
    """The error for a value of a type that a field does not take."""
    return UserError(f"{field}={shown(value)}: found {type(value).__name__}, allowed {allowed}{more}")
