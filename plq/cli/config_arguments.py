"""The arguments of programs that take a config: ``--config FILE[:ARGUMENT] [--config.SECTION.FIELD=VALUE ...]``."""

import argparse
import re

from plq.cli.common import Parser, arguments
from plq.config.flagfile import expanded
from plq.config.reference import sections
from plq.errors import UserError, nearest

FIELD = re.compile(r"--(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)


def config_arguments(program: str, description: str, epilog: str = "") -> Parser:
    """A parser with the arguments that all of these programs have."""
    parser = arguments(program, description, epilog)
    what = (
        "a Python file with get_config(), or the name of a config of plq; what follows a colon is handed to it. The "
        "word quick there (FILE:quick, FILE:ARGUMENT,quick) shrinks any config to a few steps of a narrow network"
    )
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", default="", help=what)
    parser.add_argument(
        "--config.SECTION.FIELD", metavar="VALUE", dest="changes", help="a field of it; `plq train --help` lists them"
    )
    parser.add_argument("--flagfile", metavar="FILE", help="more arguments, one a line")
    return parser


def parse_config(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """The arguments, ``changes`` being the fields set there: {"section.field": text}, unknown ones refused.

    Without any arguments the help is printed. Raises UserError for whatever cannot be understood.
    """
    rest, changes = _taken_out(expanded(argv or ["--help"]))
    if rest[-1:] == ["--config"]:
        rest.append("")
    given, left = parser.parse_known_args(rest)
    if left:
        raise UserError(f"{left[0]}: not understood; {_advice(parser, left[0])}")
    if not given.config:
        raise UserError("--config FILE: missing (see --help)")
    given.changes = changes
    return given


def _advice(parser: Parser, found: str) -> str:
    named = {"--config": "--config FILE", "--config.SECTION.FIELD": "--config.SECTION.FIELD=VALUE"}
    options = [named.get(option, option) for option in parser.options() if option != "--help"]
    return nearest(found.partition("=")[0], options)


def _taken_out(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """All other arguments, and the text given to each field: FIELD=VALUE, FIELD VALUE, and of a bool FIELD, noFIELD."""
    rest: list[str] = []
    changes: dict[str, str] = {}
    remaining = list(argv)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            return [*rest, argument, *remaining], changes
        match = FIELD.fullmatch(argument)
        if match is None:
            rest.append(argument)
            continue
        negated, name, value = match.groups()
        is_bool = _kind(name, argument.partition("=")[0]) == "bool"
        if negated and not (is_bool and value is None):
            raise UserError(f"{argument}: allowed of a field that is a bool, without a value")
        if value is None and not is_bool and not remaining:
            raise UserError(f"{argument}: found no value, allowed {argument}=VALUE")
        if value is None:
            value = str(not negated) if is_bool else remaining.pop(0)
        changes[name] = value
    return rest, changes


def _kind(name: str, argument: str) -> str:
    """The type of "section.field" as text. Raises UserError for one that there is not."""
    section, _, field = name.partition(".")
    legal = sections()
    if section not in legal:
        raise UserError(f"{argument}: unknown section {section}; {nearest(section, legal)}")
    if field not in legal[section].fields:
        raise UserError(f"{argument}: unknown field; {nearest(field, legal[section].fields)}")
    return legal[section].fields[field].kind
