"""Frozen dataclasses to JSON values and back, with every value checked against the type of its field."""

import dataclasses
import math
import types
import typing
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from plq.errors import UserError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Made = TypeVar("Made", bound="DataclassInstance")
_hints = cache(typing.get_type_hints)


def to_json(value: Any) -> Any:
    """Nested plain values. Fields that have their default are left out."""
    if dataclasses.is_dataclass(value):
        pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {field.name: to_json(found) for field, found in pairs if found != field.default}
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def from_json(kind: type[Made], fields: Any, where: str) -> Made:
    """The dataclass of these fields. Raises UserError, naming ``where`` and the field, for values of another type."""
    if not isinstance(fields, dict):
        raise UserError(f"{where}: found {_shown(fields)}, allowed an object")
    hints = {field.name: _hints(kind)[field.name] for field in dataclasses.fields(kind)}
    for name in fields:
        if name not in hints:
            raise UserError(f"{where}: {name[:40]!r} is unknown; {nearest(name[:40], hints)}")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in fields:
            raise UserError(f"{where}: lacks {field.name}")
    return kind(**{name: _typed(value, hints[name], f"{where}: {name}") for name, value in fields.items()})


def _typed(value: Any, kind: Any, where: str) -> Any:
    """The JSON value as the type of a field: int, float, str, a tuple of these, a dataclass, or one of them or None."""
    if isinstance(kind, types.UnionType):
        return None if value is None else _typed(value, typing.get_args(kind)[0], where)
    if typing.get_origin(kind) is tuple:
        return _tuple(value, typing.get_args(kind), where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_json(kind, value, where)
    if kind is float and type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise UserError(f"{where}: found {_shown(value)}, allowed {kind.__name__}")


def _tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple:
    if not isinstance(value, list):
        raise UserError(f"{where}: found {_shown(value)}, allowed a list")
    kinds = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
    if len(value) != len(kinds):
        raise UserError(f"{where}: found {len(value)} values, allowed {len(kinds)}")
    return tuple(_typed(item, kind, where) for item, kind in zip(value, kinds, strict=True))


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.40}" if isinstance(value, (int, float, str)) else type(value).__name__
