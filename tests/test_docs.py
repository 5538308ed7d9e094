"""README and docs: code that runs, commands that parse, links that lead somewhere, and walks that are the code's."""

import argparse
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import frozen_models
import jax
import numpy as np
import pytest
from networks import architecture
from PIL import Image

import plq
from plq.cli.program import COMMANDS
from plq.config.load import fields_of
from plq.config.reference import sections
from plq.config.schema import Config

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
LINKED = [*PAGES, *sorted((ROOT / "results").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
README_WORDS = 900


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text("utf-8")) if found == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


class Net(nn.Module):
    """The network that the pages speak of: images [batch, 8, 8, 1] to logits."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv0")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


@pytest.fixture
def names(tmp_path, monkeypatch) -> dict[str, Any]:
    """What the blocks of a page find: arrays and a network by name, and files in the folder that they run in."""
    monkeypatch.chdir(tmp_path)
    model = frozen_models.small_model()
    for name in ("model.plq", "digits.plq"):
        model.save(tmp_path / name)
    for split in ("train", "test"):
        for label, shade in (("cat", 40), ("dog", 200)):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 6), (shade, shade, shade)).save(folder / "0.png")
    x = frozen_models.digits(4, 8).astype(np.float32) / 255
    network, rules = Net(), [plq.Rule("head", 8, 8, expand=False), plq.Rule("conv*", 2, 2)]
    variables = jax.jit(plq.convert(network, rules, 1.0).init)(jax.random.key(0), x)
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)
    images, labels = frozen_models.digits(4, model.image_shape[0]), np.arange(4)
    return {"images": images, "labels": labels, "network": network, "variables": variables, "x": x, "kernel": kernel,
            "step": 10, "__name__": "page"}  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=ids)
def test_python_blocks_run(page, names):
    for number, text in enumerate(blocks(page, "python"), 1):
        exec(compile(text, f"{ids(page)}, block {number}", "exec"), names)
    if ids(page) == "README.md":
        end = names["factor"].end_step
        expanded = plq.convert(names["network"], names["rules"], names["factor"](end))
        assert np.array_equal(names["logits"], expanded.apply(names["variables"], names["x"]))
    if ids(page) == "docs/own_images.md":
        from plq.data.sets import load_split

        assert load_split("photos", "train", 8, "sets", "cache").labels.tolist() == [0, 1]


def test_the_pages_have_code_that_runs():
    assert {"README.md", "docs/index.md", "docs/own_network.md", "docs/own_images.md", "docs/deploy.md"} <= {
        ids(page) for page in PAGES if blocks(page, "python")
    }


class Parsed(Exception):
    """Arguments were understood; the program goes no further."""


def parse(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise UserError unless the program understands these arguments. Nothing is trained, read or written."""
    name, *rest = argv
    if name not in COMMANDS:
        raise plq.UserError(f"{name}: unknown command")
    program: Any = importlib.import_module(f"plq.cli.{name}")
    if {"--help", "-h"} & set(rest) or name == "describe":
        program.main(rest)
    elif name in ("train", "compare"):
        given = program.parse(rest)
        if name == "compare":
            given.plan()
    else:
        real = argparse.ArgumentParser.parse_args

        def parse_args(self, *args: Any) -> None:
            real(self, *args)
            raise Parsed

        with monkeypatch.context() as patched:
            patched.setattr(argparse.ArgumentParser, "parse_args", parse_args)
            with pytest.raises(Parsed):
                program.main(rest)


def commands(page: Path) -> list[list[str]]:
    """The commands of the page's sh blocks, in words."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an error unless this command can be given: it exists, and so does what it names."""
    program, *rest = words
    if program == "plq":
        parse(rest, monkeypatch)
    elif words[:3] == ["python", "-m", "plq.main"]:
        parse(["train", *words[3:]], monkeypatch)
    elif program == "make":
        assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in rest), words
    elif program == "pip":
        extras = {extra for word in rest for found in re.findall(r"\[([\w,]+)\]", word) for extra in found.split(",")}
        assert rest[0] in ("install", "wheel") and extras <= set(PROJECT["optional-dependencies"]), words
    else:
        file = rest[0] if program == "python" else program
        assert (ROOT / file).is_file(), words


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=ids)
def test_commands_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        check(words, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "plq trian --config digits_w1a2",
        "plq train --config digit_w1a2",
        "plq train --config digits_w1a2 --config.quant.weigth_bits=2",
        "plq compare --config svhn --out runs/x --vary widht=1,2",
        "plq freeze --model runs/x",
        "plq export --format onxn --model a --out b",
        "make tset",
        "pip install .[gpu]",
        "launch/locl.sh",
    ],
)
def test_a_wrong_command_is_found(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((plq.UserError, AssertionError)):
        check(shlex.split(line), monkeypatch)


def wrong_names(text: str) -> set[str]:
    """Commands, extras and fields that inline code of a page names and that there are not."""
    spans = "\n".join(re.findall(r"`([^`\n]+)`", text))
    named = {f"plq {name}" for name in re.findall(r"\bplq ([a-z]+)\b", spans)} - {f"plq {name}" for name in COMMANDS}
    extras = set(re.findall(r"plq\[(\w+)\]", text)) - set(PROJECT["optional-dependencies"])
    legal = {name for name, _ in fields_of(Config().to_json())}
    fields = set(re.findall(rf"(?<![\w./])((?:{'|'.join(Config().to_json())})\.[a-z_]+)(?![\w.])", spans)) - legal
    return named | extras | {field for field in fields if not field.endswith((".py", ".json", ".plq"))}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=ids)
def test_what_prose_names_exists(page):
    assert not wrong_names(prose(page))


def test_a_wrong_name_is_found():
    found = wrong_names("`plq trian`, plq[gpu], `quant.weigth_bits=2`, `quant.weight_bits`, `plq train`")
    assert found == {"plq trian", "gpu", "quant.weigth_bits"}


def test_readme_is_short():
    assert len(prose(ROOT / "README.md").split()) <= README_WORDS


def anchor_of(heading: str) -> str:
    """As GitHub and mkdocs make it of the text of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text))


def anchors(text: str) -> set[str]:
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)}


def broken(page: Path, text: str) -> list[str]:
    """Links of the text, as if on this page, to files or headings that there are not."""
    wrong = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        if not file.exists():
            wrong.append(target)
            continue
        generated = set(sections()) if ids(file.resolve()) == "docs/configuration.md" else set()
        if anchor and anchor not in anchors(file.read_text("utf-8") if target else text) | generated:
            wrong.append(f"{target}#{anchor}")
    return wrong


@pytest.mark.parametrize("page", LINKED, ids=ids)
def test_links_lead_somewhere(page):
    assert not broken(page, prose(page))


def test_a_broken_link_is_found():
    text = "# A B\n[a](docs/gone.md) [b](docs/launch.md#gone) [c](#a-b) [d](#a-c) [e](docs/export.md#qonnx)"
    assert broken(ROOT / "README.md", text) == ["docs/gone.md", "docs/launch.md#gone", "#a-c"]


def test_every_field_has_a_meaning():
    named = {f"{name}.{field}" for name, section in sections().items() for field in section.fields}
    assert named == {name for name, _ in fields_of(Config().to_json())}
    assert not [
        field for section in sections().values() for field, facts in section.fields.items() if not facts.meaning
    ]


def walks() -> list[list[str]]:
    """The functions of each walk through the code."""
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    return [re.findall(r"^\d+\. `([\w.]+)`", part, re.MULTILINE) for part in text.split("\n## ")[1:]]


def function(name: str) -> Any:
    """What a dotted name stands for."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return inspect.unwrap(found)
    raise ModuleNotFoundError(name)


def first_calls(run: Callable[[], object], names: list[str]) -> list[str]:
    """Those of the functions that a call of ``run`` calls, in the order of their first calls."""
    codes, found = {function(name).__code__: name for name in names}, []

    def note(frame: Any, event: str, _: object) -> None:
        name = codes.get(frame.f_code) if event == "call" else None
        if name is not None and name not in found:
            found.append(name)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def test_each_walk_names_at_most_seven_functions_that_there_are():
    assert len(walks()) == 3
    for names in walks():
        assert 5 <= len(names) <= 7 and all(map(callable, map(function, names)))
    with pytest.raises(AttributeError):
        function("plq.train.step.tran_step")


def test_the_walk_from_freezing_to_loading(tmp_path):
    plain = architecture("dorefa", 2, width=0.02).plain()
    variables = jax.jit(plain.init)(jax.random.key(0), np.zeros((1, 40, 40, 1), np.float32))

    def run() -> None:
        plq.freeze(plain, variables, image_shape=(40, 40, 1), std=(256.0,)).save(tmp_path / "m.plq")
        plq.load(tmp_path / "m.plq")

    assert first_calls(run, walks()[1]) == walks()[1]


def test_the_walk_of_an_export(tmp_path):
    model = frozen_models.small_model()
    run = lambda: plq.export(model, tmp_path / "m.onnx", format="onnx")
    assert first_calls(run, walks()[2]) == walks()[2]
