"""Configurations as files: an ml_collections file in, checked `Settings` out.

A config file starts from `default()` and changes what it needs:

    from plq.config import default
    def get_config(argument=""):
        config = default()
        config.data.name = "cifar10"
        return config
"""

import dataclasses
import json
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from plq.errors import UserError, nearest
from plq.settings import Settings

# A run may be resumed with other values of these: they do not change what it computes.
FREE_ON_RESUME = ("mesh.", "checkpoint.", "report.", "data.data_dir", "data.cache_dir", "data.threads")


def default() -> ConfigDict:
    """All fields at their defaults. Assigning an unknown field, or a value of another type, raises."""
    return ConfigDict(Settings().to_json(), type_safe=True).lock()


def settings(config: ConfigDict | dict[str, Any], source: str = "config") -> Settings:
    """The checked settings of a config. Raises UserError for an unknown field or an illegal value."""
    given = config.to_dict() if isinstance(config, ConfigDict) else config
    sections = {field.name: type(field.default) for field in dataclasses.fields(Settings)}
    for name in given:
        if name not in sections:
            raise UserError(f"{source}: unknown section {name}; {nearest(name, sections)}")
        if not isinstance(given[name], dict):
            raise UserError(
                f"{source}: section {name} is {type(given[name]).__name__}, allowed fields with their values"
            )
    built = Settings(**{name: _section(sections[name], name, fields) for name, fields in given.items()})
    built.check()
    return built


def _section(cls: type, section: str, given: dict[str, Any]) -> Any:
    types_of = {field.name: field.type for field in dataclasses.fields(cls)}
    for name in given:
        if name not in types_of:
            raise UserError(f"{section}.{name}: unknown field; {nearest(name, types_of)}")
    return cls(**{name: _typed(f"{section}.{name}", value, types_of[name]) for name, value in given.items()})


def _typed(field: str, value: Any, wanted: Any) -> Any:
    if isinstance(wanted, types.GenericAlias):
        item = wanted.__args__[0]
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{field}={value!r}: allowed a tuple of {item.__name__}")
        return tuple(_typed(field, entry, item) for entry in value)
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{field}={value}: allowed a finite number")
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UserError(f"{field}={value!r}: found {type(value).__name__}, allowed {wanted.__name__}")
    return value


def fields_of(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """("data.name", "cifar10"), ... over a nested config."""
    for section, values in config.items():
        for name, value in values.items():
            yield f"{section}.{name}", value


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Fields that may not change when a run is resumed and did: "data.name: saved a, now b"."""
    old, new = dict(fields_of(saved)), dict(fields_of(current))
    names = [name for name in {**old, **new} if not name.startswith(FREE_ON_RESUME)]
    plain = lambda value: list(value) if isinstance(value, tuple) else value
    changed = [name for name in names if plain(old.get(name)) != plain(new.get(name))]
    return [f"{name}: saved {old.get(name)}, now {new.get(name)}" for name in changed]


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config that a run saved. Raises UserError if there is none or it is damaged."""
    file = workdir / "config.json"
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); a training folder holds one") from error
    except ValueError as error:
        raise UserError(f"{file}: not readable JSON ({error})") from error
    if not isinstance(config, dict) or not all(isinstance(fields, dict) for fields in config.values()):
        raise UserError(f"{file}: is not the config of a run")
    return config


def default_workdir(config_file: Path) -> Path:
    """runs/<name of the config file>."""
    return Path("runs") / config_file.stem
