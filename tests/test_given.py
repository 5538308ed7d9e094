"""What a person gives: flag files, config files, paths of any name. It works, or is refused in one line."""

import os
import pickle
from pathlib import Path

import pytest
from frozen_models import small_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from plq.cli import compare, describe, evaluate, export, freeze, info, predict, prune, report
from plq.cli import train as main
from plq.config.flagfile import expanded
from plq.config.load import load, split
from plq.errors import UserError
from plq.runtime.file_format import encode
from plq.storage.paths import path_of

PLAIN = "from plq.config.load import default\ndef get_config(argument=''):\n    c = default()\n    {}\n    return c\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.py").write_text(PLAIN.format("c.train.seed = 7"))
    return tmp_path


def refused(program, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        program.main(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "flag",
    [
        "--config.train.epoch=3",
        "--config.tran.epochs=3",
        "--config.train.epochs=many",
        "--wrkdir=x",
        "word",
    ],
)
@pytest.mark.parametrize("form", [["--flagfile=f"], ["--flagfile", "f"], ["--flagfile=outer"]])
def test_a_flag_file_is_refused_as_the_command_line_is(flag, form, here):
    (here / "f").write_text(f"# a note\n\n  {flag}\n")
    (here / "outer").write_text("// another\n--flagfile=f\n")
    with pytest.raises(UserError) as direct:
        main.main(["--config", "c.py", flag])
    with pytest.raises(UserError) as filed:
        main.main(["--config", "c.py", *form])
    assert str(filed.value) == str(direct.value) and "\n" not in str(direct.value)


def test_a_flag_file_may_hold_all_arguments(here, capsys):
    (here / "f").write_text("--config=c.py\n--config.data.image_size=40\n--json\n")
    describe.main(["--flagfile=f"])
    assert '"network": "svhn"' in capsys.readouterr().out
    assert expanded(["--", "--flagfile=gone"]) == ["--", "--flagfile=gone"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--flagfile f: cannot be read .No such file"),
        (b"\xff\xfe\x00", "--flagfile f: is not UTF-8 text"),
        (b"--flagfile=g\n", "--flagfile f: names itself"),
        (b"--flagfile=gone", "--flagfile gone: cannot be read"),
        (b"--flagfile", "--flagfile: found no file"),
        (b"--flagfile=", "--flagfile found an empty path"),
    ],
)
@pytest.mark.parametrize("program", [main, describe, compare])
def test_a_flag_file_that_cannot_be_read(content, message, program, here):
    if content is not None:
        (here / "f").write_bytes(content)
    (here / "g").write_text("--flagfile=f\n")
    refused(program, ["--config", "c.py", "--flagfile=f"], message)


DATACLASS = """
from __future__ import annotations
import dataclasses, json, pickle
from pathlib import Path
from neighbour import SEED
from plq.config.load import default

@dataclasses.dataclass
class Mine:
    width: float = 0.25

def get_config(argument="w2a2"):
    config = default()
    config.train.seed = SEED
    config.model.width = pickle.loads(pickle.dumps(Mine())).width
    config.data.name = json.loads((Path(__file__).parent / "data.json").read_text())
    return config
"""


@pytest.mark.parametrize("name", ["c.py", "json.py", "my-config.v1.py", "é x.py", "no_suffix"])
def test_a_config_file_is_ordinary_python(name, tmp_path):
    folder = tmp_path / f"{name} folder"
    folder.mkdir()
    (folder / name).write_text(DATACLASS)
    (folder / "neighbour.py").write_text("SEED = 5\n")
    (folder / "data.json").write_text('"cifar10"')
    found = load(folder / name)
    assert (found.train.seed, found.model.width, found.data.name) == (5, 0.25, "cifar10")
    import json

    assert json.loads("1") == 1 and not (folder / "__pycache__" / "c.cpython-311.pyc").exists()
    assert str(folder) not in __import__("sys").path


def test_a_config_that_changes_within_a_second_is_read_again(tmp_path):
    file = tmp_path / "c.py"
    for seed in (1, 2, 3):
        file.write_text(PLAIN.format(f"c.train.seed = {seed}"))
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert load(file).train.seed == seed


def test_pickles_of_a_config_read_back(tmp_path):
    (tmp_path / "c.py").write_text(DATACLASS.replace("from neighbour import SEED", "SEED = 1"))
    (tmp_path / "data.json").write_text('"digits"')
    load(tmp_path / "c.py")
    import sys

    module = next(module for name, module in sys.modules.items() if name.startswith("plq_config_c_")
                  and module.__file__ == str(tmp_path / "c.py"))  # fmt: skip
    assert pickle.loads(pickle.dumps(module.Mine(0.5))) == module.Mine(0.5)


@pytest.mark.parametrize(
    ("text", "file", "argument"),
    [
        ("10:00/c.py", "10:00/c.py", ""),
        ("10:00/c.py:w2a2", "10:00/c.py", "w2a2"),
        ("c.py:w2a2,quick", "c.py", "w2a2,quick"),
        ("c.py:", "c.py", ""),
        ("a:b.py:x", "a:b.py", "x"),
        ("a:b.py", "a:b.py", ""),
        ("gone.py:x", "gone.py", "x"),
        ("11:00/gone.py", "11:00/gone.py", ""),
        ("11:00/gone.py:x", "11:00/gone.py", "x"),
    ],
)
def test_a_path_may_hold_colons(text, file, argument, here):
    (here / "10:00").mkdir()
    for name in ("10:00/c.py", "a:b.py"):
        (here / name).write_text("")
    assert split(text) == (Path(file), argument)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", r"SyntaxError: invalid syntax .c\.py, line 1"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3"),
        ("import sys\ndef get_config():\n    sys.exit('no GPU')", "line 3: SystemExit: no GPU"),
        ("def get_config():\n    raise ValueError('a\\nb')", "line 2: ValueError: a; b"),
        ("import gone_module", "line 1: ModuleNotFoundError"),
        ("def get_config(): return None", "gives no ConfigDict but NoneType"),
        ("def get_config(): return {'data': {}}", "gives no ConfigDict but dict"),
        ("get_config = 3", "TypeError"),
        ("import asyncio\nraise asyncio.CancelledError", "line 2: CancelledError"),
        (
            "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'modle': {}})",
            "unknown section modle",
        ),
    ],
)
def test_what_is_wrong_with_a_config_file_is_one_line(text, message, here):
    (here / "c.py").write_text(text)
    refused(describe, ["--config", "c.py"], message)
    if "modle" not in text:
        refused(main, ["--config", "c.py:quick"], message)


def test_a_frozen_config_can_be_shrunk(here):
    (here / "c.py").write_text(
        "from ml_collections import FrozenConfigDict\nfrom plq.config.load import default\n"
        "def get_config(): return FrozenConfigDict(default())\n"
    )
    assert load(here / "c.py", "quick").train.epochs == 2.0


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "HOME"),
        ("~/a", "HOME/a"),
        ("a~", "a~"),
        ("a/~/b", "a/~/b"),
        ("~nobody-of-this-name", "~nobody-of-this-name"),
    ],
)
def test_a_tilde_means_one_thing(text, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert path_of(text) == Path(path.replace("HOME", "/home/me"))


def programs(path: str, good: str, config: str) -> list[tuple]:
    """Every program with this path in each argument that takes one."""
    return [
        (info, [path]),
        (predict, ["--model", path, good]),
        (evaluate, ["--model", path]),
        (evaluate, ["--workdir", path]),
        (prune, ["--workdir", path, "--out", f"{good}.m"]),
        (prune, ["--workdir", f"{good}.gone", "--out", path]),
        (freeze, ["--model", path, "--out", f"{good}.plq"]),
        (freeze, ["--model", f"{good}.gone", "--out", f"{path}.plq"]),
        (export, ["--format", "stablehlo", "--model", f"{good}.gone", "--out", path, "--unchecked"]),
        (export, ["--format", "stablehlo", "--model", path, "--out", f"{good}.o", "--unchecked"]),
        (export, ["--format", "onnx", "--model", good, "--out", f"{good}.o", "--images", path]),
        (report, ["--workdir", path]),
        (main, ["--config", path]),
        (main, ["--config", config, f"--workdir={path}", "--config.data.batch_size=0"]),
        (main, ["--config", config, f"--flagfile={path}", "--config.data.batch_size=0"]),
        (compare, ["--config", config, f"--out={path}", "--config.data.batch_size=0"]),
        (compare, ["--config", config, "--out", f"{good}.c", f"--cells={path}", "--config.data.batch_size=0"]),
        (describe, ["--config", f"{path}:x"]),
    ]


STRANGE = st.sampled_from(
    [
        "",
        "a b",
        "é",
        "\udce9",
        "~",
        "~x",
        "~/\udcff",
        "a:b",
        "a:b/c",
        ":",
        "a\nb",
        "\x1b[31m",
        "-x",
        "--out",
        "x" * 255,
        "x" * 300,
        "a/" * 2100,
        "\0",
        "dangling",
        "loop",
        "loop/a",
        "folder",
        ".",
        "..",
        "/dev/null",
        "/proc/x/y",
        "x%s{}",
        "a://b",
        "gs://",
        "gs://b/*",
        "\u202e",
        "日本",
        "'\"",
        "$HOME",
        "*",
        "file/x",
    ]
)
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("~:/\n\0-\udc80\udcff "), max_size=12)


def outcome(program, arguments):
    """Exit status, and the line that says why it is 2."""
    try:
        program.main(arguments)
    except UserError as error:
        return 2, str(error)
    except SystemExit as ended:
        return ended.code or 0, "printed before"
    return 0, ""


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=STRANGE | TEXT)
def test_any_name_works_or_is_refused_in_one_line(name, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    links = {"dangling": "nowhere", "loop": "loop"}
    for link, target in links.items():
        if not os.path.lexists(link):
            os.symlink(target, link)
    (here / "folder").mkdir(exist_ok=True)
    (here / "file").write_text("x")
    before = sorted(here.rglob("*"))
    for program, arguments in programs(name, str(here / "good"), str(here / "c.py")):
        status, message = outcome(program, arguments)
        assert status == 0 or (status == 2 and message and message.isprintable()), (program, arguments)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", ["a b", "é", "\udce9", "~x", "a:b", "a\nb", "-x", "x" * 250, "'\"", "*"])
def test_files_of_any_name_are_read_and_written(name, here, capsysbinary):
    model = here / f"{name}.plq"
    model.write_bytes(encode(small_model().frozen))
    Image.new("L", (9, 9)).save(here / "p.png")
    os.rename("p.png", f"{name}.png")
    predict.main(["--model", str(model), f"./{name}.png"])
    export.main(["--format", "stablehlo", f"--model={name}.plq", f"--out={name}.o", "--images", f"./{name}.png"])
    assert (here / f"{name}.o").is_file()
    assert capsysbinary.readouterr().out.count(b"\n") == 4
