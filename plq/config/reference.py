"""The fields of a configuration as its source text states them: type, default, and the comment beside each.

The text is read and not imported, so that a help text or a check of names does not import JAX.
"""

import ast
import dataclasses
import functools
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[1]
ROOT = "plq.config.schema"


@dataclasses.dataclass(frozen=True)
class Field:
    """One field. ``kind`` and ``default``: as Python text; ``meaning``: the comment beside it, or ""."""

    kind: str
    default: str
    meaning: str


class Section(NamedTuple):
    """A section of the config: what it is about, and its fields by name."""

    about: str
    fields: dict[str, Field]


@functools.cache
def sections() -> dict[str, Section]:
    """All sections by name, in the order of `plq.config.schema.Config`."""
    module, config = _find(ROOT, "Config")
    found = {}
    for name, kind, _ in _assignments(config):
        home, cls = _find(module, kind)
        assert isinstance(cls, ast.ClassDef)
        about = (ast.get_docstring(cls) or "").split("\n\n")[0].replace("\n", " ")
        found[name] = Section(about, dict(_fields(home, cls)))
    return found


def help_text() -> str:
    """Every field with its type, default and meaning, as lines of a help text."""
    lines = []
    for name, section in sections().items():
        lines += ["", f"{name}: {section.about}"]
        for field, facts in section.fields.items():
            lines += [f"  --config.{name}.{field}={facts.default}", f"      {facts.kind}; {facts.meaning}"]
    return "\n".join(lines)


def _fields(module: str, cls: ast.ClassDef) -> Iterator[tuple[str, Field]]:
    comments = _comments(module)
    for name, kind, node in _assignments(cls):
        meaning = comments.get(node.end_lineno or node.lineno, "")
        yield name, Field(kind, repr(_default(module, node.value)), meaning)


def _default(module: str, node: ast.AST | None) -> Any:
    """The value of a default: a literal, the name of a constant, or a call of `dataclasses.field`."""
    if isinstance(node, ast.Name):
        node = _find(module, node.id)[1]
    if isinstance(node, ast.Call):
        arguments = {keyword.arg: keyword.value for keyword in node.keywords}
        return {} if "default_factory" in arguments else _default(module, arguments["default"])
    assert node is not None
    return ast.literal_eval(node)


def _assignments(cls: ast.AST) -> Iterator[tuple[str, str, ast.AnnAssign]]:
    """(name, type, statement) of each field of a dataclass."""
    assert isinstance(cls, ast.ClassDef)
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation), node


def _find(module: str, name: str) -> tuple[str, ast.AST]:
    """The class, or the value of the constant, of this name: its module and node. Imports are followed."""
    for node in ast.parse(_text(module)).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and name in [ast.unparse(target) for target in node.targets]:
            return module, node.value
        if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
            return _find(node.module, name)
    raise LookupError(f"{module}: has no {name}")


@functools.cache
def _text(module: str) -> str:
    return PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")


def _comments(module: str) -> dict[int, str]:
    """The comments of a module by line."""
    tokens = tokenize.generate_tokens(io.StringIO(_text(module)).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
