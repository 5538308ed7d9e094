"""A config named on a command line, with the fields that are set there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from plq.config.flagfile import expanded
from plq.config.load import build_config, load, split
from plq.config.schema import Config
from plq.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Command:
    """Checked settings, the file and the argument that they come from, and the values of a program's own flags."""

    config: Config
    file: Path
    argument: str
    flags: flags.FlagValues


def read(argv: list[str], define: Callable[[flags.FlagValues], object]) -> Command:
    """What ``--config FILE[:ARGUMENT] [--config.SECTION.FIELD=VALUE ...]`` and the flags of ``define`` say.

    ``--flagfile FILE`` stands for the arguments in that file. Raises UserError for whatever cannot be understood.
    """
    values = flags.FlagValues()
    define(values)
    own = [f"--{name}" for name in values]
    given, rest = _config_argument(expanded(argv))
    for argument in rest:
        _check_field(argument)
    path, argument = split(given)
    config = load(path, argument)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["plq", *rest])
    try:
        left = values(["plq", *rest])[1:]
    except flags.Error as error:
        raise UserError("; ".join(line.strip() for line in str(error).splitlines() if line.strip())) from error
    if left:
        allowed = ", ".join(["--config FILE", "--config.SECTION.FIELD=VALUE", *own])
        raise UserError(f"{left[0]}: not understood; allowed: {allowed}")
    return Command(build_config(values["config"].value), path, argument, values)


def _config_argument(argv: list[str]) -> tuple[str, list[str]]:
    """The FILE[:ARGUMENT] of --config FILE or --config=FILE, the last if there are several, and all other arguments."""
    given, rest, remaining = "", [], list(argv)
    while remaining:
        argument = remaining.pop(0)
        name, _, value = argument.lstrip("-").partition("=")
        if name != "config" or not argument.startswith("-"):
            rest.append(argument)
        else:
            given = value or (remaining.pop(0) if remaining else "")
    if not given:
        raise UserError("--config FILE: missing (see --help)")
    return given, rest


def _check_field(argument: str) -> None:
    """Refuse --config.SECTION.FIELD=VALUE with an unknown section or field."""
    name = argument.lstrip("-").split("=")[0]
    if not name.startswith("config."):
        return
    section, _, field = name.removeprefix("config.").partition(".")
    legal = Config().to_json()
    if section not in legal:
        raise UserError(f"--{name}: unknown section {section}; {nearest(section, legal)}")
    if field not in legal[section]:
        raise UserError(f"--{name}: unknown field; {nearest(field, legal[section])}")
