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
import os
import re
import sys
import zlib
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import FieldReference

from plq.checks import typed
from plq.config.schema import Config
from plq.data.images import size_of
from plq.data.sets import default_splits
from plq.errors import UserError, nearest, one_line
from plq.models.importing import importable, is_own
from plq.storage.paths import path_of

QUICK = "quick"
QUICK_SIZE = 96
# A run may be resumed with other values of these: they do not change what it computes.
FREE_ON_RESUME = ("mesh.", "checkpoint.", "report.", "data.data_dir", "data.labels", "data.cache_dir", "data.threads")
# Processes of one run may have other values of these.
FREE_PER_PROCESS = ("data.data_dir", "data.labels", "data.cache_dir", "data.threads")


def default() -> ConfigDict:
    """All fields at their defaults. Assigning an unknown field, or a value of another type, raises."""
    fields = Config().to_json()
    fields["data"]["image_size"] = FieldReference(0, field_type=object)  # a number or two
    config = ConfigDict(fields, type_safe=True).lock()
    config.model.options.unlock()  # their names are those of the network's fields
    return config


def split(given: str) -> tuple[Path, str]:
    """The file and the argument of FILE[:ARGUMENT]: the longest FILE that there is, as names may hold colons.

    A name without a folder and an ending is that of a config of plq (`shipped`), where there is no such file.

    Raises UserError for a path that cannot be.
    """
    parts = given.split(":")
    candidates = [(":".join(parts[:count]), ":".join(parts[count:])) for count in range(len(parts), 0, -1)]
    try:
        paths = [(path_of(file), argument) for file, argument in candidates if file]
    except UserError as error:
        raise UserError(f"--config {error}") from error
    if not paths:
        raise UserError(f"--config {given}: found no file, allowed FILE[:ARGUMENT]")
    shortest = next(pair for pair in reversed(paths) if "/" not in pair[1])  # to be named where there is no file
    found = next((pair for pair in paths if pair[0].is_file()), None)
    return found or (shipped().get(str(shortest[0]), shortest[0]), shortest[1])


def shipped() -> dict[str, Path]:
    """The configs that come with plq, by name: in the package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    folder = next((folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()), package)
    return {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem != "__init__"}


def load(file: Path, argument: str = "") -> ConfigDict:
    """The config of a file with this argument, shrunk if "quick" is in it.

    Raises UserError for a missing file, an argument that is not in the file's ``ARGUMENTS``, and whatever is wrong
    with the file: it is the user's own code and can raise anything.
    """
    if not file.is_file():
        known = f"no such file, and no config of plq; {nearest(file.stem, shipped())}"
        raise UserError(f"--config {file}: {'is a folder, allowed a file' if file.is_dir() else known}")
    words = [word for word in argument.split(",") if word != QUICK]
    with one_line(f"--config {file}", str(file)):
        config = _get_config(file, ",".join(words))
        if isinstance(config, FrozenConfigDict):
            config = ConfigDict(config)
        if isinstance(config, ConfigDict):
            return quick(config) if QUICK in argument.split(",") else config
    raise UserError(f"--config {file}: its get_config() gives no ConfigDict but {type(config).__name__}")


class _Source(SourceFileLoader):
    """Reads the file each time: compiled code that Python keeps may be older than a file changed within a second."""

    def path_stats(self, path: Any) -> Any:
        raise OSError


def _module(file: Path) -> Any:
    """The file as an imported module, which finds its neighbours and is found by pickle and dataclasses."""
    path = os.path.abspath(file)
    name = f"plq_config_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{zlib.crc32(os.fsencode(path)):08x}"
    spec = importlib.util.spec_from_loader(name, _Source(name, path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _get_config(file: Path, argument: str) -> Any:
    """What the file's get_config gives; without an argument at its default."""
    with importable(os.path.dirname(os.path.abspath(file))):
        module = _module(file)
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

    A narrow network (somebody's own as it is), images whose shorter side is at most 96 pixels, batches of at most 32,
    two epochs of the first 256 training images, the first 64 test images. The digits, few as they are, are taken whole.
    """
    data = config.data
    usual = dict(zip(("train_split", "test_split"), default_splits(data.name), strict=True))
    if data.name != "digits":
        for (field, split), count in zip(usual.items(), (256, 64), strict=True):
            first = re.split(r"[+\[]", data[field] or split)[0]
            data[field] = f"{first}[:{count}]"
    data.image_size, data.batch_size = _at_most(data.image_size, QUICK_SIZE), min(data.batch_size, 32)
    if not is_own(config.model.name):
        config.model.width = min(config.model.width, 0.125)
    config.train.epochs, config.report.every_steps = 2.0, 4
    return config


def _at_most(image_size: Any, shorter: int) -> Any:
    """The size, with both sides scaled down alike if the shorter one is longer than that."""
    size = size_of(image_size)
    if size is None or min(size) <= shorter:
        return image_size
    height, width = (round(side * shorter / min(size)) for side in size)
    return height if height == width else (height, width)


def build_config(config: ConfigDict | dict[str, Any], source: str = "config") -> Config:
    """The checked settings of a config. Raises UserError for an unknown field or an illegal value."""
    given = _plain(config)
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


def _plain(value: Any) -> Any:
    """The value with dicts in place of ConfigDicts, also in tuples and lists."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (tuple, list) else value


def _section(cls: type, section: str, given: dict[str, Any]) -> Any:
    types_of = {field.name: field.type for field in dataclasses.fields(cls)}
    for name in given:
        if name not in types_of:
            raise UserError(f"{section}.{name}: unknown field; {nearest(name, types_of)}")
    return cls(**{name: typed(f"{section}.{name}", value, types_of[name]) for name, value in given.items()})


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
    plain = lambda value: json.dumps(value, sort_keys=True)  # a tuple and a list are the same
    changed = [name for name in names if plain(was(name)) != plain(new.get(name))]
    return [f"{name}: {there} {was(name)}, now {new.get(name)}" for name in changed]


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config that a run saved. Raises UserError if there is none or it is damaged."""
    file = workdir / "config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); a training folder holds one") from error
    except ValueError as error:
        raise UserError(f"{file}: not readable JSON ({error})") from error
    if not isinstance(config, dict) or not all(isinstance(fields, dict) for fields in config.values()):
        raise UserError(f"{file}: is not the config of a run")
    return config


def default_workdir(file: Path, argument: str) -> Path:
    """runs/<name of the config file>-<its argument>."""
    return Path("runs") / "-".join([file.stem, *filter(None, argument.replace("/", "-").split(","))])
