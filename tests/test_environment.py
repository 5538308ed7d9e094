"""What surrounds a program: an encoding that lacks letters, a full disk behind its output, a platform not there."""

import os
import subprocess
import sys

import pytest
from frozen_models import small_model
from PIL import Image

from plq.errors import UserError, printable
from plq.report.model_card import card
from plq.runtime.file_format import encode
from plq.storage.output import write_text_atomic


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("environment")
    (path / "é.plq").write_bytes(encode(small_model().frozen))
    Image.new("L", (9, 9)).save(path / "é日.png")
    return path


def program(folder, *command, stdout=subprocess.PIPE, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    kept["PYTHONPATH"] = os.pathsep.join(sys.path)
    kept |= {"JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, env=kept, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("environment", "shown"), [
    ({"PYTHONIOENCODING": "ascii"}, rb"\xe9\u65e5.png: "),
    ({"PYTHONIOENCODING": "latin-1"}, b"\xe9\\u65e5.png: "),
    ({"PYTHONIOENCODING": "ascii:strict"}, rb"\xe9\u65e5.png: "),
    ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b".png: "),
    ({"LANG": "C"}, "é日.png: ".encode()),
])  # fmt: skip
def test_what_an_encoding_lacks_is_shown_as_an_escape(environment, shown, folder):
    done = program(folder, "plq", "predict", "--model", "é.plq", "é日.png", "gone é.png", **environment)
    assert shown in done.stdout and done.returncode == 2
    assert done.stderr.startswith(b"plq: gone ") and done.stderr.count(b"\n") == 1


def test_a_full_disk_behind_the_output_is_one_line(folder):
    with open("/dev/full", "wb") as full:
        done = program(folder, "plq", "info", "é.plq", stdout=full)
    assert done.returncode == 2 and done.stderr == b"plq: output: No space left on device\n"


def test_files_are_utf_8_and_take_any_name(tmp_path):
    write_text_atomic(tmp_path / "a", "é \udce9")
    assert (tmp_path / "a").read_bytes() == "é ".encode() + rb"\udce9"
    text = card(small_model({"config": {}}).frozen, 'a\n"\udce9.plq', 9)
    assert '\n# a\\n"\\udce9.plq\n' in text
    name = next(line for line in text.splitlines() if "plq.load" in line).split("plq.load(")[1][:-1]
    assert name.encode("utf-8", "backslashreplace").decode() == r'"a\n\"\udce9.plq"'


def test_a_message_is_one_printable_line():
    assert printable("a\nb\x1b\udcff é") == r"a\nb\x1b\udcff é"
    assert str(UserError("a\nb")) == r"a\nb"


@pytest.mark.parametrize("platform", ["tpu", "cuda", "nonsense", "cpu,tpu"])
def test_a_platform_that_is_not_there_is_one_line(platform, folder, tmp_path):
    (folder / "c.py").write_text("from plq.config.load import default\ndef get_config(): return default()\n")
    done = program(folder, "plq.main", "--config", "c.py", "--workdir", str(tmp_path / "w"), JAX_PLATFORMS=platform)
    wanted = f"plq: JAX_PLATFORMS={platform}: JAX finds no such platform here; allowed: cpu, or none named\n"
    assert done.returncode == 2 and done.stderr.decode() == wanted and not (tmp_path / "w").exists()


EVERY = [
    ["describe", "--config", "c.py"], ["predict", "--model", "é.plq", "é日.png"],
    ["evaluate", "--model", "é.plq"], ["prune", "--workdir", "w", "--out", "m"],
    ["freeze", "--model", "w", "--out", "x.plq"], ["compare", "--config", "c.py", "--out", "o"],
    ["export", "--format", "stablehlo", "--model", "é.plq", "--out", "e", "--unchecked"],
    ["report", "--workdir", "w"],
]  # fmt: skip


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command[0])
def test_every_program_that_computes_says_so(command, folder):
    (folder / "c.py").write_text("from plq.config.load import default\ndef get_config(): return default()\n")
    done = program(folder, "plq", *command, JAX_PLATFORMS="nonsense")
    assert done.returncode == 2 and done.stderr.startswith(b"plq: JAX_PLATFORMS=nonsense: "), done.stderr
    assert done.stderr.count(b"\n") == 1 and not (folder / "o").exists()


def test_load_says_so_each_time(folder):
    again = "import plq\nfor _ in range(2):\n    try: plq.load('é.plq')\n    except ValueError as error: print(error)\n"
    (folder / "again.py").write_text(again)
    done = program(folder, "again", JAX_PLATFORMS="tpu")
    assert done.stdout.count(b"JAX_PLATFORMS=tpu: JAX finds no such platform here") == 2, done.stderr
