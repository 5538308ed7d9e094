"""A config file with fields set by text: the settings that a command line asks for."""

import ast
import dataclasses
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from plq.config.load import build_config, load, split
from plq.config.schema import Config
from plq.errors import UserError
from plq.models.importing import is_own

WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
NOT_A_VALUE = (KeyError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError)  # of `ast.literal_eval` too


@dataclasses.dataclass(frozen=True)
class Selected:
    """Checked settings, and the file and the argument that they come from."""

    config: Config
    file: Path
    argument: str


def select(given: str, changes: Mapping[str, str]) -> Selected:
    """The settings of FILE[:ARGUMENT], with these texts as the values of "section.field".

    Raises UserError for a file, a field or a value that is not right.
    """
    path, argument = split(given)
    config = load(path, argument)
    for field, text in changes.items():
        _set(config, field, text)
    selected = Selected(build_config(config), path, argument)
    folder = os.path.dirname(os.path.abspath(path))
    if is_own(selected.config.model.name) and folder not in sys.path:
        sys.path.append(folder)  # the network may lie beside the file
    return selected


def _set(config: ConfigDict, name: str, text: str) -> None:
    section, field = name.split(".")
    try:
        value = parse_value(name, text)
    except UserError as error:
        raise UserError(f"--config.{error}") from error
    with config.unlocked(), config.ignore_type():  # `build_config` checks types, also those of a file's own sections
        if section not in config:
            config[section] = ConfigDict()
        if not isinstance(config[section], ConfigDict):
            raise UserError(f"--config.{name}: section {section} of the file is {type(config[section]).__name__}")
        config[section][field] = value


def parse_value(name: str, text: str) -> Any:
    """The value of "section.field" that a text stands for. Raises UserError for one that is not of the field's type."""
    section, field = name.split(".")
    sections: dict[str, Any] = {entry.name: type(entry.default) for entry in dataclasses.fields(Config)}
    kind: Any = next(entry.type for entry in dataclasses.fields(sections[section]) if entry.name == field)
    try:
        return _value(kind, text)
    except NOT_A_VALUE as error:
        allowed = kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else kind
        raise UserError(f"{name}={text}: allowed {allowed}") from error


def _value(kind: Any, text: str) -> Any:
    """(0.5, 0.75) is a tuple, and so are 0.5,0.75 and, of a field with several values, 0.5 and conv,dense."""
    if kind is dict:
        return dict(ast.literal_eval(text.strip()))
    if kind is bool:
        return WORDS[text.lower()]
    if kind in (str, int, float):
        return kind(text)
    if kind == tuple[str, ...] and not text.startswith(("(", "[")):
        return tuple(word.strip() for word in text.split(",") if word.strip())
    value = ast.literal_eval(text.strip())
    return value if isinstance(kind, types.UnionType) or isinstance(value, (tuple, list)) else (value,)
