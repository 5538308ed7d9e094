"""The fields of somebody's network as plain values: checked against its dataclass, and read back from it."""

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from plq.checks import shown
from plq.errors import UserError, nearest, one_line
from plq.models.importing import class_of

CLASSES = ("num_classes", "n_classes", "classes", "num_labels", "num_outputs")  # filled from the data set
Options = dict[str, Any]


def plain_options(field: str, value: Any) -> Any:
    """The value with tuples in place of lists. Raises UserError unless it is what JSON holds.

    Bools, numbers, texts, None, and lists, tuples and dicts of them.
    """
    if isinstance(value, Mapping):
        return {str(name): plain_options(f"{field}.{name}", entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain_options(f"{field}[{index}]", entry) for index, entry in enumerate(value))
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    allowed = "bool, a finite number, str, None, or a list, tuple or dict of them"
    raise UserError(f"{field}={shown(value)}: found {type(value).__name__}, allowed {allowed}")


def fields_of_network(network: Callable[..., nn.Module]) -> dict[str, Any]:
    """The fields that a network takes, by name."""
    fields = dataclasses.fields(class_of(network))
    return {field.name: field for field in fields if field.init and field.name not in ("parent", "name")}


def with_classes(network: Callable[..., nn.Module], options: Options, num_classes: int) -> Options:
    """The options with the number of classes in the first of `CLASSES` that is a field, unless one is given."""
    names = [name for name in CLASSES if name in fields_of_network(network)]
    return options if not names or set(names) & set(options) else {**options, names[0]: num_classes}


def check_options(field: str, network: Callable[..., nn.Module], options: Options) -> None:
    """Raise UserError, naming the option, for one that is unknown, missing, or not of its field's type."""
    legal, name = fields_of_network(network), class_of(network).__name__
    require_known(field, network, options)
    preset = network.keywords if isinstance(network, functools.partial) else {}
    required = [own for own, entry in legal.items() if _required(entry) and own not in {*options, *preset}]
    if required:
        allowed = ", ".join(legal)
        raise UserError(f"{field}: lacks {', '.join(required)}, which {name} has no default for; allowed: {allowed}")
    kinds = _annotations(class_of(network))
    for own, value in options.items():
        if not _fits(value, kinds.get(own, Any)):
            kind = kinds[own]
            wanted = kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else kind
            raise UserError(f"{field}.{own}={shown(value)}: found {type(value).__name__}, allowed {wanted}")


def require_known(field: str, network: Callable[..., nn.Module], options: Options) -> None:
    """Raise UserError, naming the option, for one that is no field of the network."""
    legal, name = fields_of_network(network), class_of(network).__name__
    for own in options:
        if own not in legal:
            known = nearest(own, legal) if legal else "allowed: none"
            raise UserError(f"{field}.{own}: {name} has no such field; {known}")


def made(network: Callable[..., nn.Module], options: Options) -> nn.Module:
    """The network. Raises UserError for whatever its own code raises."""
    with one_line(f"{class_of(network).__name__}({', '.join(f'{k}={shown(v)}' for k, v in options.items())})"):
        return network(**options)


def plain_fields(network: nn.Module) -> Options:
    """The values of all fields that are plain ones, also those that nobody gave."""
    found = {}
    for name in fields_of_network(type(network)):
        try:
            found[name] = plain_options(name, getattr(network, name))
        except UserError:
            continue
    return found


def _required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _annotations(cls: type) -> dict[str, Any]:
    """The types of the fields; none where they cannot be told, as where a name is imported for type checkers alone."""
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        return {}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a plain value is of an annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (tuple, list, collections.abc.Sequence, collections.abc.Iterable):
        if origin is tuple and arguments and arguments[-1] is not ...:
            return isinstance(value, tuple) and len(value) == len(arguments) and all(map(_fits, value, arguments))
        return isinstance(value, tuple) and (not arguments or all(_fits(entry, arguments[0]) for entry in value))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (list, tuple):
        return isinstance(value, tuple)
    if kind is type(None) or kind is None:
        return value is None
    if kind in (bool, str, dict) or origin in (dict, collections.abc.Mapping):
        return isinstance(value, kind if origin is None else dict)
    return origin is not collections.abc.Callable and kind is not collections.abc.Callable
