"""Configurations as files: an ml_collections file in, checked `Config` out.

A config file starts from `default()` and changes what it needs:

    from plq.config.load import default
    ARGUMENTS = ("w2a2", "w4a4")  # what may follow a colon: configs/file.py:w4a4; the first is the default

    def get_config(argument=ARGUMENTS[0]):
        config = default()
        config.data.name = "cifar10"
        return config

The word "quick" is everywhere an argument, alone or after another one (configs/file.py:w4a4,quick): see `quick`.
"""

import dataclasses
import importlib.util
import inspect
import json
import math
import re
import types
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from plq.config.schema import Config
from plq.data.sets import default_splits
from plq.errors import UserError, nearest

QUICK = "quick"
# A run may be resumed with other values of these: they do not change what it computes.
FREE_ON_RESUME = ("mesh.", "checkpoint.", "report.", "data.data_dir", "data.cache_dir", "data.threads")
# Processes of one run may have other values of these.
FREE_PER_PROCESS = ("data.data_dir", "data.cache_dir", "data.threads")


def default() -> ConfigDict:
    """All fields at their defaults. Assigning an unknown field, or a value of another type, raises."""
    return ConfigDict(Config().to_json(), type_safe=True).lock()


def load(file: Path, argument: str = "") -> ConfigDict:
    """The config of a file with this argument, shrunk if "quick" is in it.

    Raises UserError for a missing file, an argument that is not in the file's ``ARGUMENTS``, and whatever is wrong
    with the file: it is the user's own code and can raise anything.
    """
    if not file.is_file():
        raise UserError(f"--config {file}: no such file")
    words = [word for word in argument.split(",") if word != QUICK]
    try:
        config = _get_config(file, ",".join(words))
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"--config {file}: {type(error).__name__}: {'; '.join(lines)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {file}: its get_config() gives no ConfigDict but {type(config).__name__}")
    return quick(config) if QUICK in argument.split(",") else config


def _get_config(file: Path, argument: str) -> Any:
    """What the file's get_config gives; without an argument at its default."""
    loader = SourceFileLoader(file.stem, str(file))
    spec = importlib.util.spec_from_loader(file.stem, loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config {file}: has no function get_config()")
    if not argument:
        return module.get_config()
    legal = getattr(module, "ARGUMENTS", None)
    if not inspect.signature(module.get_config).parameters:
        raise UserError(f"--config {file}:{argument}: takes no argument but {QUICK}")
    if legal is not None and argument not in legal:
        raise UserError(f"--config {file}:{argument}: unknown; {nearest(argument, legal)}, and ,{QUICK} after each")
    return module.get_config(argument)


def quick(config: ConfigDict) -> ConfigDict:
    """The config shrunk to 16 steps or so, to see that all of it works: the same pipeline, no accuracy.

    A narrow network, images of at most 96 pixels, batches of at most 32, two epochs of the first 256 training images,
    the first 64 test images. The digits, few as they are, are taken whole.
    """
    data = config.data
    usual = dict(zip(("train_split", "test_split"), default_splits(data.name), strict=True))
    if data.name != "digits":
        for (field, split), count in zip(usual.items(), (256, 64), strict=True):
            first = re.split(r"[+\[]", data[field] or split)[0]
            data[field] = f"{first}[:{count}]"
    data.image_size, data.batch_size = min(data.image_size, 96), min(data.batch_size, 32)
    config.model.width = min(config.model.width, 0.125)
    config.train.epochs, config.report.every_steps = 2.0, 4
    return config


def build_config(config: ConfigDict | dict[str, Any], source: str = "config") -> Config:
    """The checked settings of a config. Raises UserError for an unknown field or an illegal value."""
    given = config.to_dict() if isinstance(config, ConfigDict) else config
    sections = {field.name: type(field.default) for field in dataclasses.fields(Config)}
    for name in given:
        if name not in sections:
            raise UserError(f"{source}: unknown section {name}; {nearest(name, sections)}")
        if not isinstance(given[name], dict):
            raise UserError(
                f"{source}: section {name} is {type(given[name]).__name__}, allowed fields with their values"
            )
    built = Config(**{name: _section(sections[name], name, fields) for name, fields in given.items()})
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


def differences(
    saved: dict[str, Any], current: dict[str, Any], free: tuple[str, ...] = FREE_ON_RESUME, there: str = "saved"
) -> list[str]:
    """Fields that are not free to differ and do: "data.name: saved a, now b".

    A field that ``saved`` lacks, having been written before there was one, counts as saved at its default.
    """
    usual, old, new = (dict(fields_of(config)) for config in (default().to_dict(), saved, current))
    names = [name for name in {**old, **new} if not name.startswith(free)]
    was = lambda name: old.get(name, usual.get(name))
    plain = lambda value: list(value) if isinstance(value, tuple) else value
    changed = [name for name in names if plain(was(name)) != plain(new.get(name))]
    return [f"{name}: {there} {was(name)}, now {new.get(name)}" for name in changed]


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


def default_workdir(file: Path, argument: str) -> Path:
    """runs/<name of the config file>-<its argument>."""
    return Path("runs") / "-".join([file.stem, *filter(None, argument.split(","))])
