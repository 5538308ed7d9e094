"""Every flag, program, field and extra that a string of plq names is there."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import plq
from plq.cli.program import COMMANDS
from plq.config.load import fields_of
from plq.config.schema import Config

ROOT = Path(plq.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
OTHER = {"file_format", "help", "version", "install"}  # of tfds build; of every program


def strings(file: Path) -> list[str]:
    """Constants, with {} for what an f-string puts in; style sheets, which have names with -- too, left out."""
    tree, found = ast.parse(file.read_text("utf-8")), []
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.append(node.value)
    return [re.sub(r"var\(--[a-z]+\)", "", text) for text in found]


TEXTS = {file: strings(file) for file in SOURCES if file.name != "style.py"}


def flags_of(file: Path) -> set[str]:
    """The names that a file gives to argparse."""
    return set(re.findall(r'add_argument\(\s*"--([\w-]+)"', file.read_text("utf-8")))


FLAGS = {name for file in SOURCES for name in flags_of(file)} | {"config", "flagfile"}
PROGRAMS = {"plq", "plq.main"}
FIELDS = {name for name, _ in fields_of(Config().to_json())}
EXTRAS = set(tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])


def test_what_is_looked_for_is_found():
    assert {"workdir", "convert", "vary", "image_shape", "cells"} <= FLAGS
    assert sum(len(texts) for texts in TEXTS.values()) > 1000


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", list(TEXTS), ids=ids)
def test_what_a_message_names_exists(file):
    for text in TEXTS[file]:
        assert set(re.findall(r"(?<![\w-])--([a-z][a-z_-]*)(?![\w-]*\{)", text)) <= FLAGS | OTHER, text
        assert set(re.findall(r"python -m (plq(?:\.[a-z]+)*)", text)) <= PROGRAMS, text
        assert set(re.findall(r"(?<![\w/-])(?<!this )plq ([a-z]+) (?=-|[A-Z]|\{)", text)) <= set(COMMANDS), text
        assert set(re.findall(r"plq\[(\w+)\]", text)) <= EXTRAS, text
        named = set(re.findall(r"--config\.([a-z]+\.[a-z_0-9]+)", text))
        sections = "|".join(Config().to_json())
        named |= set(re.findall(rf"(?<![\w./])((?:{sections})\.[a-z_0-9]+)=", text))
        assert named <= FIELDS, text


ADVISED = {  # modules of programs -> the flags that they have; a message of theirs names no others
    file: flags_of(file) | {"config", "flagfile"}
    for file in SOURCES
    if file.parent.name == "cli" and file.stem in COMMANDS
}


@pytest.mark.parametrize("file", list(ADVISED), ids=ids)
def test_a_program_advises_its_own_flags(file):
    for text in TEXTS[file]:
        if "plq " not in text and " " in text:  # a message, and not about another program
            assert set(re.findall(r"(?<![\w-])--([a-z][a-z_-]*)", text)) <= ADVISED[file] | OTHER, text


def test_the_advice_for_an_image_is_taken_by_all_who_read_images():
    readers = [file for file in SOURCES if "read_image(" in file.read_text("utf-8")]
    assert {ids(file) for file in readers} == {"runtime/loading.py", "cli/predict.py", "exporters/source.py"}
    for program in ("cli/predict.py", "cli/export.py"):
        assert "convert" in flags_of(ROOT / program)
